"""YAML of people one does not know: plain values alone, of bounded size and depth, aliases counted out."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 50
MAX_DIGITS = 300
MAX_VALUES = 25_000
"""Most values of a document, every alias written out: whoever copies or prints it makes that many."""


class BoundedLoader(yaml.SafeLoader):
    """Build plain values, and refuse documents that are small as text and huge or endless once they are read."""

    def __init__(self, stream: str) -> None:
        if len(stream) > MAX_CHARACTERS:
            raise yaml.YAMLError(f"is longer than {MAX_CHARACTERS} characters")
        super().__init__(stream)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node no deeper than MAX_DEPTH, as one of no more than MAX_VALUES."""
        self._depth += 1
        self._count += 1
        if self._count > MAX_VALUES:
            raise yaml.YAMLError(f"holds more than {MAX_VALUES} values")
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"is nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)  # pyright: ignore[reportArgumentType]
        self._depth -= 1
        return node

    def compose_document(self) -> yaml.Node | None:
        """Compose a document of no more than MAX_VALUES values, its aliases written out."""
        node = super().compose_document()
        if node is not None and _values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"holds more than {MAX_VALUES} values once its aliases are written out")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Build a whole number of no more than MAX_DIGITS characters."""
        if len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"holds a number of over {MAX_DIGITS} digits")
        return super().construct_yaml_int(node)


BoundedLoader.add_constructor("tag:yaml.org,2002:int", BoundedLoader.construct_yaml_int)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node and all below it, an alias as what it stands for; one within itself is endless."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # what an alias finds that stands inside its own anchor
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def load_yaml(text: str, loader: type[BoundedLoader] = BoundedLoader) -> Any:
    """Load one YAML document.

    Raises:
        yaml.YAMLError: it is no YAML, holds a number or date that there is not, or goes beyond the limits above.
    """
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # values that do not fit their tag make PyYAML's constructors raise nearly anything
        raise yaml.YAMLError(f"holds a value that does not fit its kind ({error})") from error
