"""A folder of CAMs to a folder of masks: thresholds, PAR, dense CRF, random walk, RCA's fusion."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagmask.data.cam_files import SUFFIX, read_cams, write_cams
from tagmask.data.dataset import Record
from tagmask.data.images import open_image, shrunk
from tagmask.data.label_maps import write_label_map
from tagmask.engine.device import keep_freed_memory, on_cores
from tagmask.engine.inference import Item, stream
from tagmask.engine.pairs import Pairs
from tagmask.engine.pixels import Pixels
from tagmask.engine.progress import track
from tagmask.engine.refiners import at_size, check_saliency, context_to_background, fused, refined, saliency_map, walked
from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method
from tagmask.ops.affinity import confident_labels
from tagmask.ops.crf import crf_on_cams
from tagmask.ops.label_ids import IGNORE, label_dtype
from tagmask.recipes.load import InferenceConfig
from tagmask.recipes.stages import AffinityConfig, RefineConfig

SHOWN = {"none": "thresholds", "par": "PAR", "crf": "dense CRF", "affinity": "random walk", "fusion": "CRF and fusion"}
"""How each refinement is called on the progress bar."""
SHAPE = 0.1  # how far the logarithms of height over width may lie apart, besides what rounding to cells makes of it
PIXEL_MEMORY = 1500.0  # bytes a pixel; of the refinements a dense CRF of an image's tags takes most
logger = logging.getLogger(__name__)
Labelled = Callable[[Record, Image.Image, Tensor, Tensor], np.ndarray]


def write_cam_folder(method: Method, records: Iterable[Record], config: InferenceConfig, folder: Path) -> list[str]:
    """Write the CAMs of every image's tags as `NAME.npz`; files that are there already are kept.

    Args:
        method: trained, in eval mode, on its device.
        records: images with tags.
        config: size and scales.

    Returns:
        what is wrong with the images that do not open, a line each.
    """
    skipped: list[str] = []
    plain = config.model_copy(update={"refine": "none"})
    missing = [record for record in records if not (folder / f"{record.name}{SUFFIX}").exists()]
    items = [Item(record.name, record.image, record.tags) for record in missing]
    # One image at a time: in a batch its CAMs would differ by rounding from one company to another, and after a kill
    # the company is another.
    done_items = stream(
        method, items, plain, source="cam", batch=1, on_error=lambda _, error: skipped.append(str(error))
    )
    for done in track(done_items, "CAMs", len(items)):
        tags = list(done.item.tags or ())
        write_cams(folder / f"{done.item.name}{SUFFIX}", done.scores[tags], tags)
    return skipped


def write_gathered(
    folder: Path, records: Sequence[tuple[int, Record]], of_image: Callable[[int], tuple[Tensor, Tensor]]
) -> None:
    """Write the attention maps that RCA gathered while it trained, as CAMs.

    Args:
        folder: of the CAMs.
        records: training images, with their positions in the training set.
        of_image: gives class indices (n,) and maps (n, h, w) of the image at a position of the training set.
    """
    for index, record in track(records, "CAMs", len(records)):
        classes, maps = of_image(index)
        write_cams(folder / f"{record.name}{SUFFIX}", maps, classes.tolist())


def refine_folder(
    cams: Path,
    records: Sequence[Record],
    output: Path,
    config: RefineConfig,
    *,
    background: bool = True,
    affinity: Affinity | None = None,
    num_classes: int | None = None,
    last: Collection[int] = (),
    pixels: Pixels | None = None,
    pairs: Pairs | None = None,
    companions: Mapping[int, Sequence[int]] | None = None,
) -> list[str]:
    """Write a mask `NAME.png` for every record that has CAMs; masks that are there already are kept.

    Where two members of a band differ, the pixel is undecided, 255; `engine.refiners.refined` says which they are. With
    a band, context classes are an opinion of their own: where they win over what the classes' CAMs alone say, the pixel
    is undecided, too.

    Args:
        cams: folder of `NAME.npz`.
        records: name the images, and say where they are.
        output: folder for the masks.
        config: which refinement, and its parameters; `engine.band.with_band` puts two powers in place of a band `auto`.
        background: whether label 0 exists; without it CAMs compete among themselves.
        affinity: for the random walk: trained, in eval mode, on its device.
        num_classes: K; CAMs with higher ids are of context classes and become background. None: there are no such.
        last: label ids that take no part in the competition and get what it leaves to the background.
        pixels: what drawn masks teach; it corrects the CAMs, and has to agree with the masks.
        pairs: what tells classes apart that come together; it corrects the CAMs before all else.
        companions: for label ids those that they come along with (`engine.refiners.refined`).

    Returns:
        what is wrong with the images or CAMs that were left out, a line each.

    Raises:
        TagmaskError: the refinement needs an AffinityNet or a background that is not there, the band is still `auto`
            although there is a background, or a folder of saliency maps is named that holds none of these images.
    """
    if config.name == "affinity" and affinity is None:
        raise TagmaskError("refine.name affinity: no trained AffinityNet; name a run that has one (--run)")
    if config.name in ("affinity", "fusion") and not background:
        raise TagmaskError(f"refine.name {config.name} needs a background class; use crf, par or none")
    if config.band == "auto" and background:
        raise TagmaskError("refine.band auto: is chosen by a classifier; name its run (--run), or give two powers")
    if config.name == "fusion" and config.saliency is not None:
        check_saliency(config.saliency, records)

    def label(record: Record, image: Image.Image, own: Tensor, ids: Tensor) -> np.ndarray:
        late = torch.isin(ids, torch.tensor([*last], dtype=ids.dtype))
        if not late.any() or late.all():
            return decided(record, image, own, ids)
        if not background:
            own[late] *= 1 - own[~late].amax(dim=0)
            return decided(record, image, own, ids)
        first, second = (decided(record, image, own[part], ids[part]) for part in (~late, late))
        return np.where(first == 0, second, first)

    def decided(record: Record, image: Image.Image, own: Tensor, ids: Tensor) -> np.ndarray:
        if pixels is None or not len(ids):
            return agreed(record, image, own, ids)
        changed, judged = pixels.corrected(image, own, ids, config.crf)
        return pixels.agree(agreed(record, image, changed, ids), judged)

    def agreed(record: Record, image: Image.Image, own: Tensor, ids: Tensor) -> np.ndarray:
        things = _things(ids, num_classes)
        if things.all() or config.band is None or config.name == "fusion":
            opinions = members(record, image, own, ids, config)
        else:
            # CAMs of context classes are broad and creep over things; things that nothing competes with creep over what
            # is around them. What both say is sure.
            opinions = members(record, image, own[things], ids[things], config)
            opinions += members(record, image, own, ids, config.weakest())
        # Context classes become background before opinions are compared: where one is background and another a context
        # class, both mean that no class of interest is there.
        return _agreement([_without_context(each.cpu().numpy(), num_classes) for each in opinions])

    def members(record: Record, image: Image.Image, own: Tensor, ids: Tensor, config: RefineConfig) -> list[Tensor]:
        if config.name == "affinity":
            assert affinity is not None
            return walked(affinity, image, own, ids, config)
        if config.name == "fusion":
            return fused(image, own, ids, config, saliency_map(record, image, config), num_classes)
        return refined(image, own, ids, config, background, companions)

    # A walk runs a network and multiplies matrices of pairs of pixels, which use all cores: one image at a time.
    memory = math.inf if affinity is not None else PIXEL_MEMORY
    what = SHOWN.get(config.name, config.name)
    return _each(cams, records, output, config.longest, label, what, pairs=pairs, memory=memory)


def write_affinity_labels(
    cams: Path,
    records: Sequence[Record],
    output: Path,
    config: RefineConfig,
    affinity: AffinityConfig,
    num_classes: int | None = None,
    pixels: Pixels | None = None,
    pairs: Pairs | None = None,
) -> list[str]:
    """Write the masks that AffinityNet learns from: what two CRFs, of a strong and a weak background, agree on.

    Args and result as of `refine_folder`; `affinity` gives the two powers of the background score.

    Source: PSA (CVPR 2018), section 3.2; spec A6.1.
    """

    def label(record: Record, image: Image.Image, own: Tensor, ids: Tensor) -> np.ndarray:
        judged = None
        if pixels is not None and len(ids):
            own, judged = pixels.corrected(image, own, ids, config.crf)
        colours = torch.from_numpy(np.array(image))
        things = _things(ids, num_classes)
        low, high = crf_on_cams(colours, own[things], affinity.low, affinity.high, preset=config.crf)
        planes = _pooled_labels(low, high, affinity.pool)
        if not things.all():  # as in `refine_folder`
            (all_of_them,) = crf_on_cams(colours, own, affinity.high, preset=config.crf)
            beside = context_to_background(all_of_them, ids, num_classes)
            planes = torch.where(planes == _pooled_labels(beside, beside, affinity.pool), planes, IGNORE)
        # From positions among the planes to label ids; 255 stays.
        ids = ids[things]
        table = torch.full((IGNORE + 1,), IGNORE)
        table[0] = 0
        table[1 : len(ids) + 1] = ids
        labels = table[planes].numpy()
        return labels if pixels is None or judged is None else pixels.agree(labels, judged)

    return _each(cams, records, output, config.longest, label, "labels for AffinityNet", pairs=pairs)


def _pooled_labels(low: Tensor, high: Tensor, pool: int) -> Tensor:
    """Decide labels (H, W) over squares of `pool` pixels; at the far sides what there is of a square counts."""
    height, width = low.shape[-2:]
    margins = 0, -width % pool, 0, -height % pool
    # Beyond the image the planes are zero, so that a square's mean leaves the order of its planes as it is.
    labels = confident_labels(F.pad(low, margins), F.pad(high, margins), pool=pool)
    return labels.repeat_interleave(pool, 0).repeat_interleave(pool, 1)[:height, :width]


def _agreement(opinions: Sequence[np.ndarray]) -> np.ndarray:
    """Labels (H, W) that all opinions share; 255 where they differ."""
    return np.where(np.all([each == opinions[0] for each in opinions], axis=0), opinions[0], IGNORE)


def _things(ids: Tensor, num_classes: int | None) -> Tensor:
    """Say (n,) which label ids are of no context class."""
    return torch.ones_like(ids, dtype=torch.bool) if num_classes is None else ids <= num_classes


def _without_context(labels: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Turn the labels of context classes, which lie above K, into background."""
    return labels if num_classes is None else np.where((labels > num_classes) & (labels != IGNORE), 0, labels)


def _check_shape(cams: Tensor, image: Image.Image, path: Path) -> None:
    """Raise a TagmaskError where CAMs (n, h, w) are of a picture of another shape than the image; square ones fit."""
    height, width = cams.shape[-2:]
    turned = abs(math.log(height * image.width / (width * image.height)))
    if len(cams) and height != width and turned > SHAPE + 2 / min(height, width):
        raise TagmaskError(
            f"{path}: CAMs of {width} x {height} do not fit a photograph of {image.width} x {image.height}; if the "
            "photograph was replaced, make its CAMs anew (train --from cams, or label --save-cams)"
        )


def _each(
    cams: Path,
    records: Sequence[Record],
    output: Path,
    longest: int,
    label: Labelled,
    what: str,
    *,
    pairs: Pairs | None,
    memory: float = PIXEL_MEMORY,
) -> list[str]:
    """Write each record's mask by `label`, several images at a time, and give what is wrong with those left out.

    Args:
        longest: side in pixels; larger images are labelled at this size, and their labels enlarged.
        label: given record, image, CAMs (n, H, W) at the image's size and their label ids, gives the mask.
        what: the work, for the progress bar.
        pairs: corrects the CAMs.
        memory: bytes a pixel that one image takes; it bounds how many are worked on at once.
    """

    def write(record: Record) -> str | None:
        path = output / f"{record.name}.png"
        try:
            full = open_image(record.image)  # first: a photograph that does not open has no CAMs either
            own, ids = read_cams(cams / f"{record.name}{SUFFIX}")
            image = shrunk(full, longest)
            _check_shape(own, full, cams / f"{record.name}{SUFFIX}")
            own = at_size(own, image)
            labels = label(record, image, own if pairs is None else pairs.corrected(image, own, ids), ids)
            labels = labels.astype(label_dtype(labels.max()))
        except TagmaskError as error:
            return str(error)
        path.parent.mkdir(parents=True, exist_ok=True)
        if labels.shape != (full.height, full.width):
            labels = np.asarray(Image.fromarray(labels).resize(full.size, Image.Resampling.NEAREST))
        write_label_map(path, labels)
        return None

    keep_freed_memory()
    missing = [record for record in records if not (output / f"{record.name}.png").exists()]
    with closing(on_cores(write, missing, memory=memory * longest**2)) as done:
        return [error for error in track(done, what, len(missing)) if error]
