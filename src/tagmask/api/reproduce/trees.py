"""Checks that a folder is the data set a paper was run on: what it lacks, where to get that, how many images it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.readers.coco import find_coco, split_of
from tagmask.data.readers.voc import ANNOTATIONS, AUGMENTED, IMAGES, LISTS, find_voc, list_ids
from tagmask.data.splits import open_data
from tagmask.errors import TagmaskError
from tagmask.recipes.load import Recipe

VOC_ADDRESS = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
VOC_SERVER = "http://host.robots.ox.ac.uk:8080"
SBD_ADDRESS = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
COCO_ADDRESS = "http://images.cocodataset.org"
GLAS_ADDRESS = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/download/"


@dataclass(frozen=True)
class Count:
    """How many images of a part there are, and how many the paper had."""

    what: str
    found: int
    expected: int


@dataclass(frozen=True)
class Tree:
    """What was found in a folder.

    Attributes:
        root: where the layout begins.
        counts: images of each part.
        settings: overrides of the recipe that this tree asks for.
        notes: what differs from the official tree, one sentence each.
    """

    root: Path
    counts: tuple[Count, ...]
    settings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every count is the paper's."""
        return all(count.found == count.expected for count in self.counts)


def check_voc(data: Path, recipe: Recipe) -> Tree:
    """Check a tree of PASCAL VOC 2012 with the augmented masks: 1,464 / 10,582 / 1,449 images.

    Raises:
        TagmaskError: a part is missing without which nothing can be run; names all such parts and where to get them.
    """
    root = find_voc(data)
    if root is None:
        raise TagmaskError(
            f"{data}: no VOC tree, which has a folder {IMAGES}; download {VOC_ADDRESS} and unpack it there, or name "
            "the folder VOC2012 itself"
        )
    missing = []
    if not (root / LISTS / "val.txt").is_file():
        missing.append(f"{root / LISTS / 'val.txt'}: part of {VOC_ADDRESS}")
    if not (root / "SegmentationClassAug").is_dir():
        missing.append(
            f"{root / 'SegmentationClassAug'}: the masks of train_aug; download {SBD_ADDRESS}, unpack it, and make "
            f"them by `tagmask data sbd benchmark_RELEASE {root}`"
        )
    _refuse(missing, data)
    settings, notes = [], []
    if not (root / ANNOTATIONS).is_dir() and recipe.data.tag_source == "annotations":
        settings.append("data.tag_source=masks")
        notes.append(f"no {ANNOTATIONS}: tags are read off the masks, where the paper read them from XML files")
    train = root / LISTS / "train.txt"
    if not train.is_file():
        notes.append(f"no {train.name} in {LISTS}: rows of train are scored on {AUGMENTED}")
    test = root / LISTS / "test.txt"
    if not test.is_file():
        notes.append(
            f"no test.txt in {LISTS}: VOC's test images are given out at {VOC_SERVER} to those who register; without "
            "them the rows of test are left out"
        )
    sizes = _sizes(root, recipe, settings)
    counts = (
        Count("train", len(list_ids(train)) if train.is_file() else 0, 1464),
        Count(AUGMENTED, sizes.get(AUGMENTED, 0), 10_582),
        Count("val", sizes.get("val", 0), 1449),
    )
    return Tree(root, counts, tuple(settings), tuple(notes))


def check_coco(data: Path, recipe: Recipe) -> Tree:
    """Check a tree of MS COCO 2014: 82,081 images of train and 40,137 of val that bear a tag.

    Raises:
        TagmaskError: as `check_voc`.
    """
    have = {split_of(file) for file in find_coco(data)} if data.is_dir() else set()
    missing = [
        f"{data}/annotations/instances_{split}2014.json and the folder {split}2014: download "
        f"{COCO_ADDRESS}/annotations/annotations_trainval2014.zip and {COCO_ADDRESS}/zips/{split}2014.zip"
        for split in ("train", "val")
        if split not in have
    ]
    _refuse(missing, data)
    settings, notes = [], []
    masks = data / "SegmentationClass"
    if masks.is_dir():
        settings.append(f"data.masks={masks}")
    else:
        notes.append(
            f"no {masks}, the authors' label maps (train|val/000000000042.png): COCO's outlines are the ground truth, "
            "in which crowds are left out; the published number counts other pixels"
        )
    sizes = _sizes(data, recipe, settings)
    counts = Count("train", sizes.get("train", 0), 82_081), Count("val", sizes.get("val", 0), 40_137)
    return Tree(data, counts, tuple(settings), tuple(notes))


def check_glas(data: Path, recipe: Recipe) -> Tree:
    """Check a folder of GlaS (Warwick-QU): train_1.bmp … train_85.bmp, testA and testB, each with its _anno.bmp.

    Raises:
        TagmaskError: as `check_voc`; or photographs lack their masks.
    """
    root = next((place for place in (data, *sorted(data.glob("Warwick*"))) if any(place.glob("train_*.bmp"))), None)
    if root is None:
        raise TagmaskError(
            f"{data}: no train_1.bmp, train_1_anno.bmp, … of GlaS; download Warwick_QU_Dataset.zip from {GLAS_ADDRESS} "
            "and unpack it there"
        )
    images = {split: glas_images(root, split) for split in ("train", "test")}
    without = [path for paths in images.values() for path in paths if not glas_mask(path).is_file()]
    if not images["test"]:
        raise TagmaskError(f"{root}: no testA_1.bmp, testB_1.bmp, …; unpack all of the archive from {GLAS_ADDRESS}")
    if without:
        raise TagmaskError(f"{glas_mask(without[0])}: missing, as {len(without)} masks in all; unpack the archive anew")
    return Tree(root, (Count("train", len(images["train"]), 85), Count("test", len(images["test"]), 80)))


def glas_images(root: Path, split: str) -> list[Path]:
    """Return the photographs of GlaS's `train` or `test` (parts A and B) by name."""
    found = root.glob(f"{split}*_*.bmp")
    return sorted(path for path in found if not path.stem.endswith("_anno"))


def glas_mask(image: Path) -> Path:
    """Return the file of a photograph's mask, in which every gland has a number of its own."""
    return image.with_name(f"{image.stem}_anno.bmp")


def _refuse(missing: Sequence[str], data: Path) -> None:
    if missing:
        raise TagmaskError(f"{data}: not the whole data set; missing is " + "; and ".join(missing))


def _sizes(root: Path, recipe: Recipe, settings: Sequence[str]) -> dict[str, int]:
    """Read the data set as the run will, and count the images of each split."""
    from tagmask.engine.model import overridden

    dataset = open_data(root, overridden(recipe, settings).data)
    return {split: len(dataset.split(split)) for split in dataset.splits}


CHECKS: dict[str, Callable[[Path, Recipe], Tree]] = {"voc": check_voc, "coco": check_coco, "glas": check_glas}
