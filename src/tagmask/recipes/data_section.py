"""The section `data` of a recipe: where images, tags and masks come from, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tagmask.recipes.sections import Positive, Section

Found = Literal[
    "table",
    "folders",
    "coco",
    "voc",
    "yolo",
    "label_studio",
    "cvat",
    "labelme",
    "imagefolder",
    "parquet",
    "tar",
    "cls_labels",
]
Format = Literal["auto", Found]
Untagged = Literal["skip", "negative", "error"]
TagSource = Literal["annotations", "masks"]


class DataConfig(Section):
    """Where images, tags and (for evaluation or full supervision) masks come from."""

    path: Path | None = Field(
        default=None, description="The folder, table or annotation file; the command line's argument sets it."
    )
    format: Format = Field(default="auto", description="How the data is written; auto looks at it.")
    image_folder: Path | None = Field(
        default=None, description="The folder of the images; none takes the one that the format says."
    )
    classes: tuple[str, ...] | None = Field(
        default=None, description="The class names in the order of their ids; none takes those of the data."
    )
    context: tuple[str, ...] = Field(
        default=(),
        description="Tags of context classes (water, road): learnt like classes, and background in every mask.",
    )
    last: tuple[str, ...] = Field(
        default=(),
        description="Classes that nearly all images bear, of which tags say nothing: in the masks of a staged run they "
        "get what the other classes leave to the background.",
    )
    background: bool = Field(
        default=True, description="Whether label 0 exists; false where every pixel has one of the classes."
    )
    masks: Path | None = Field(
        default=None, description="The folder of ground-truth masks (PNG); none takes the one that the format says."
    )
    use_masks: bool | Path = Field(
        default=False,
        description="Whether ground truth of training images, where there is some, takes the place of the masks made "
        "from tags: in AffinityNet's labels and for the segmenter. The path of a folder takes the masks there; of one "
        "that tagmask wrote, those that were mended.",
    )
    review: Path | None = Field(
        default=None,
        description="The table of a review on the page: with `use_masks`, masks that it says are to be kept count as "
        "mended, and those to be redone do not.",
    )
    mask_classes: tuple[str, ...] | None = Field(
        default=None,
        description="The names of the mask ids 1, 2, …; none takes `classes.txt` beside the masks, else the data's.",
    )
    untagged: Untagged = Field(
        default="skip",
        description="What to do with an image that bears no tag: leave it out, learn that it bears none, stop.",
    )
    tag_source: TagSource = Field(
        default="annotations", description="Whether VOC's tags are read from its XML files or from its masks."
    )
    tag_list: Path | None = Field(
        default=None,
        description="A list of VOC images with the numbers of their classes from 0, `2007_000032.jpg 0 14`, which "
        "stands in place of the annotations, as RCA's train_cls.txt; images it does not name keep theirs.",
    )
    separator: str = Field(
        default=",", description="What stands between the columns of a CSV: one character, or tab, semicolon, bar."
    )
    tag_separator: str = Field(
        default=";", description="What stands between the tags of a table's cell; also as a word: space, comma."
    )
    encoding: str = Field(default="utf-8", description="The encoding of a table, such as latin-1.")
    max_pixels: Positive = Field(
        default=256_000_000, description="The most pixels of an image; larger ones are refused before they are decoded."
    )
    train: tuple[str, ...] | None = Field(
        default=None, description="The splits to learn from; none takes all but val, test and those of `evaluate`."
    )
    evaluate: tuple[str, ...] | None = Field(
        default=None, description="The splits to evaluate on; none takes val, else test, where there is one."
    )
    averaged: tuple[str, ...] | None = Field(
        default=None,
        description="The classes over which, with the background, the mean IoU is taken; the others still count as "
        "wrong answers. None takes all.",
    )
