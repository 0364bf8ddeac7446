"""The label ids that mean the same in every label map; here, since this module needs neither torch nor numpy."""

from collections.abc import Sequence
from typing import Literal

IGNORE = 255
"""The id of pixels that no loss and no score counts."""
HIGHEST = 2**16 - 1
"""The highest id that a label map can hold."""
IGNORED_CLASS = "ignored_255"
"""The name that stands in a list of more than 254 classes where the class of the label id 255 would stand.

So everywhere a class's label id is its place in the list, and no class has the id that means ignored.
"""


def count_classes(classes: Sequence[str]) -> int:
    """Return how many classes a list names; `IGNORED_CLASS` is none."""
    return len(classes) - (IGNORED_CLASS in classes)


def label_dtype(highest: int) -> Literal["uint8", "uint16"]:
    """Return the type of label maps whose ids go as far as `highest`, the number of classes: 8 bits where they fit."""
    return "uint8" if highest <= IGNORE else "uint16"
