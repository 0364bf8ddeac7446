"""The rows of the papers' tables: what was published, under which conditions, and what measures it here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tagmask.evaluation.protocols import PROTOCOLS

TRAIN, VAL, TEST = "train", "val", "test"


@dataclass(frozen=True)
class Measure:
    """How a row is measured on a finished run.

    Attributes:
        kind: `run` scores label maps of the trained network; `masks` scores the masks of a stage, which the segmenter
            learns from; `archive` writes the label maps that VOC's server scores.
        split: the images.
        source: of `run`: the decoder, which is told no tags, or the CAMs, which are.
        settings: overrides of the recipe's `inference`.
        protocol: how mIoU is counted.
    """

    kind: Literal["run", "masks", "archive"]
    split: str
    source: Literal["decoder", "cam"] = "decoder"
    settings: tuple[str, ...] = ()
    protocol: str = "sccam"

    def __post_init__(self) -> None:
        assert self.protocol in PROTOCOLS


@dataclass(frozen=True)
class Row:
    """A number of a paper's table.

    Attributes:
        key: its short name, as `--only` takes it.
        what: in words.
        published: mIoU in percent; None where nobody published it.
        source: where it was published.
        measure: how it is measured here; None where it rests on what was not released.
        note: what else to know; where there is no measure, what is missing and which row comes nearest.
    """

    key: str
    what: str
    published: float | None
    source: str
    measure: Measure | None
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """A paper's run on a data set.

    Attributes:
        name: as the verb takes it.
        recipe: of the package.
        tree: the layout that `trees` checks.
        rows: of the paper's tables.
        cost: time and disk to expect, and where that is known from.
        stage_files: published files that take the place of a stage where they lie beside the weights, with the kind of
            importer they need.
        importer: the importer of the authors' trained network.
        conditions: what a reader has to know of the run as a whole.
    """

    name: str
    recipe: str
    tree: Literal["voc", "coco", "glas"]
    rows: tuple[Row, ...]
    cost: str
    stage_files: dict[str, str] = field(default_factory=dict)
    importer: str | None = None
    conditions: str = ""


PLAIN = ("inference.flip=false", "inference.refine=none")
SERVER = "write the archive, then upload it to VOC's evaluation server; nobody else has the ground truth"


def _cam(split: str, scales: str, *more: str, protocol: str = "sccam") -> Measure:
    return Measure("run", split, "cam", (f"inference.scales={scales}", "inference.refine=none", *more), protocol)


SECO_VOC = Experiment(
    name="seco/voc",
    recipe="seco/voc-paper",
    tree="voc",
    importer="seco",
    cost="9 h 46 min on one RTX 3090 (the released log), and an hour for the rows (reckoned); 3 GB",
    rows=(
        Row("val", "decoder, scales 1, 1.25, 1.5 with flip, dense CRF", 74.0, "paper", Measure("run", VAL)),
        Row("test", "the same on test", 73.8, "paper", Measure("archive", TEST), SERVER),
        Row(
            "masks",
            "CAM at seven scales, tags given",
            76.5,
            "paper",
            _cam(TRAIN, "[1.0,0.5,0.75,1.25,1.5,1.75,2.0]"),
        ),
        Row("seeds", "CAM at one scale, tags given", 74.8, "paper", _cam(TRAIN, "[1.0]")),
        Row(
            "log-decoder",
            "decoder at one scale, no flip, no CRF",
            72.18,
            "released log, step 20,000",
            Measure("run", VAL, "decoder", ("inference.scales=[1.0]", *PLAIN)),
        ),
        Row(
            "log-cam",
            "CAM at four scales, tags given",
            74.16,
            "released log, step 20,000",
            _cam(VAL, "[1.0,0.5,0.75,1.5]"),
        ),
        Row(
            "log-aux",
            "auxiliary CAM at four scales, tags given",
            70.39,
            "released log, step 20,000",
            _cam(VAL, "[1.0,0.5,0.75,1.5]", "inference.cam_head=auxiliary"),
        ),
    ),
)

SECO_COCO = Experiment(
    name="seco/coco",
    recipe="seco/coco-paper",
    tree="coco",
    importer="seco",
    cost="about 80 h on one RTX 3090, reckoned from VOC's log (80,000 steps of 8 images), and some hours for the "
    "40,137 images of val with the dense CRF; 3 GB, of which scoring writes one file of a few kB",
    rows=(Row("val", "decoder, scales 1, 1.25, 1.5 with flip, dense CRF", 46.7, "paper", Measure("run", VAL)),),
    conditions="Ground truth: the authors' label maps SegmentationClass/{train,val}/000000000042.png where they are in "
    "the tree; else COCO's own outlines, in which crowds are left out.",
)

_SCCAM_SCALES = "[1.0,0.5,1.5,2.0]"
SCCAM_VOC = Experiment(
    name="sccam/voc",
    recipe="sccam/voc-paper",
    tree="voc",
    importer="sccam",
    stage_files={"res38_cls.pth": "psa", "res38_aff.pth": "psa"},
    cost="3 to 5 days on one RTX 3090, reckoned from 121,000 + 9,915 steps of 16 crops of ResNet-38, not measured; "
    "15 GB, of which the CAMs of train_aug are most",
    rows=(
        Row("cam-train", "CAM of round 3, tags given", 50.9, "SC-CAM README", _cam(TRAIN, _SCCAM_SCALES)),
        Row("cam-val", "CAM of round 3, tags given", 49.6, "SC-CAM README", _cam(VAL, _SCCAM_SCALES)),
        Row(
            "subcam-train",
            "CAM of the sub-categories' head, largest of a class, tags given",
            36.7,
            "SC-CAM issue 8",
            _cam(TRAIN, _SCCAM_SCALES, "inference.cam_head=subclasses"),
        ),
        Row("walk", "masks of AffinityNet's random walk", 63.4, "SC-CAM issue 4", Measure("masks", TRAIN)),
        Row("val", "DeepLab-v2, dense CRF", 66.1, "SC-CAM issue 19", Measure("run", VAL)),
        Row("test", "the same on test", 65.9, "SC-CAM issue 19", Measure("archive", TEST), SERVER),
    ),
    conditions="The first clusters come from PSA's released classifier where res38_cls.pth lies in --weights, as in "
    "the release; else round 0 is trained.",
)

RCA_VOC = Experiment(
    name="rca/voc",
    recipe="rca/voc-paper",
    tree="voc",
    importer="rca",
    cost="1 to 2 days on one RTX 3090, reckoned from 39,690 steps of 8 images and 20,000 of the segmenter, not "
    "measured; 8 GB",
    rows=(
        Row(
            "masks",
            "masks of the fusion with saliency maps",
            73.2,
            "RCA issue 11",
            Measure("masks", TRAIN, protocol="eps"),
            "needs saliency maps: --set refine.saliency=FOLDER; without them it is another method's number",
        ),
        Row("val", "DeepLab-v2, dense CRF, on OAA+", 71.1, "LPCAM, table 4", Measure("run", VAL)),
        Row("test", "the same on test", 71.6, "LPCAM, table 4", Measure("archive", TEST), SERVER),
        Row(
            "eps-val",
            "DeepLab-v2 on EPS",
            72.2,
            "LPCAM, table 4",
            None,
            "rests on EPS as the base, which RCA did not release; nearest: val",
        ),
        Row(
            "eps-test",
            "the same on test",
            72.8,
            "LPCAM, table 4",
            None,
            "rests on EPS as the base, which RCA did not release; nearest: test",
        ),
        Row(
            "coco-val",
            "COCO val, on EPS",
            36.8,
            "LPCAM, table 4",
            None,
            "neither base nor COCO code were released; nearest: tagmask train -r rca/coco, which is nobody's recipe",
        ),
    ),
)

SCCAM_GLAS = Experiment(
    name="sccam/glas",
    recipe="sccam/glas",
    tree="glas",
    cost="about 24 h on one RTX 3090, reckoned from 40,000 steps of 20 crops and 10,000 of the segmenter, not "
    "measured; 8 GB",
    rows=(
        Row(
            "test",
            "segmenter trained on joined masks of patches, no tags given",
            71.5,
            "OEEM (MICCAI 2022), table 2",
            Measure("run", TEST, protocol="eps"),
            "mean over gland and the rest, no background class. OEEM's README has its columns mIoU and Dice exchanged: "
            "71.52 is mIoU, 83.40 is Dice",
        ),
    ),
    conditions="GlaS has no tags. As in OEEM: patches of 112 pixels every 56 are tagged gland and rest, each where it "
    "covers over 5 % of the patch, which is read off the masks; so the tags know more than an image's would. Of OEEM's "
    "SC-CAM only the number is published: rounds, clusters and segmenter are ours.",
)

EXPERIMENTS = {each.name: each for each in (SECO_VOC, SECO_COCO, SCCAM_VOC, RCA_VOC, SCCAM_GLAS)}
