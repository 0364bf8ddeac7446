"""Augmented views of training images, each a function of seed and position alone.

A run that is killed and resumed, or spread over more processes, sees the same pixels in the same order.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms.v2 import functional as TF

from tagmask.data.balance import Donors, balanced_epoch, repeat_factors
from tagmask.data.batch import Batch
from tagmask.data.dataset import Dataset
from tagmask.data.images import open_image
from tagmask.data.paste import cut_out, paste_onto
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE
from tagmask.recipes.load import ViewsConfig
from tagmask.recipes.sections import ImageOrder

Colour = int | tuple[int, int, int]
DONORS = 5  # images that are looked at for something to paste


@dataclass(frozen=True)
class Crop:
    """A crop of a rescaled, maybe mirrored image.

    Attributes:
        size: height and width of the whole image after rescaling.
        source: left, top, right, bottom of the taken part, in pixels of the rescaled image.
        box: top, bottom, left, right of real pixels in the crop; the rest is padding.
        flip: whether the image is mirrored before cropping.
    """

    size: tuple[int, int]
    source: tuple[int, int, int, int]
    box: tuple[int, int, int, int]
    flip: bool


def draw_crop(height: int, width: int, config: ViewsConfig, random: np.random.Generator) -> Crop:
    """Draw rescaling, mirroring and the place of the crop for an image of `height` x `width`."""
    if config.squash:
        side = config.crop
        return Crop((side, side), (0, 0, side, side), (0, side, 0, side), bool(random.random() < config.flip))
    if config.resize_long is not None:
        low, high = config.resize_long
        factor = int(random.integers(low, high + 1)) / max(height, width)
    elif config.factors:
        factor = config.factors[int(random.integers(len(config.factors)))]
    else:
        factor = random.uniform(*config.scale)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    flip = bool(random.random() < config.flip)
    spans = []
    for length in size:
        spare = length - config.crop
        offset = int(random.integers(0, abs(spare) + 1))
        spans.append((offset, 0, config.crop) if spare >= 0 else (0, offset, length))
    (top, to_top, rows), (left, to_left, columns) = spans
    rows, columns = min(rows, config.crop), min(columns, config.crop)
    return Crop(
        size, (left, top, left + columns, top + rows), (to_top, to_top + rows, to_left, to_left + columns), flip
    )


def take_crop(image: Image.Image, crop: Crop, side: int, resample: Image.Resampling, fill: Colour) -> Image.Image:
    """Cut `crop` out of an image; only the pixels that are kept are resampled. `fill` is of the image's kind."""
    if crop.flip:
        image = ImageOps.mirror(image)
    height, width = crop.size
    left, top, right, bottom = crop.source
    across, down = image.width / width, image.height / height
    part = image.resize(
        (right - left, bottom - top), resample, box=(left * across, top * down, right * across, bottom * down)
    )
    canvas = Image.new(image.mode, (side, side), fill)
    canvas.paste(part, (crop.box[2], crop.box[0]))
    return canvas


def weak_view(image: Image.Image, config: ViewsConfig, random: np.random.Generator) -> Image.Image:
    """A random resized crop of the whole image with colour jitter, grey, some blur and solarisation."""
    area = image.width * image.height
    box = (0, 0, image.width, image.height)
    for _ in range(10):
        wanted = area * random.uniform(*config.weak_area)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < width <= image.width and 0 < height <= image.height:
            left = int(random.integers(0, image.width - width + 1))
            top = int(random.integers(0, image.height - height + 1))
            box = (left, top, left + width, top + height)
            break
    view = image.resize((config.crop, config.crop), Image.Resampling.BICUBIC, box=box)
    if random.random() < 0.5:
        view = ImageOps.mirror(view)
    view = _colours(view, config, random, blur=0.1)
    return ImageOps.solarize(view) if random.random() < 0.2 else view


def strong_view(crop: Image.Image, config: ViewsConfig, random: np.random.Generator) -> tuple[Image.Image, bool]:
    """The same crop, maybe mirrored, with colour jitter, grey and blur; and whether it is mirrored."""
    flip = bool(random.random() < 0.5)
    return _colours(ImageOps.mirror(crop) if flip else crop, config, random, blur=0.5), flip


def _colours(image: Image.Image, config: ViewsConfig, random: np.random.Generator, blur: float) -> Image.Image:
    if random.random() < 0.8:
        image = _jittered(image, config.jitter, random)
    if random.random() < 0.2:
        image = ImageOps.grayscale(image).convert("RGB")
    if random.random() < blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    return image


def _jittered(
    image: Image.Image, amounts: tuple[float, float, float, float], random: np.random.Generator
) -> Image.Image:
    """Brightness, contrast, saturation and hue changed, in random order."""
    brightness, contrast, saturation, hue = amounts
    for operation in random.permutation(4):
        if operation == 0:
            image = ImageEnhance.Brightness(image).enhance(random.uniform(1 - brightness, 1 + brightness))
        elif operation == 1:
            image = ImageEnhance.Contrast(image).enhance(random.uniform(1 - contrast, 1 + contrast))
        elif operation == 2:
            image = ImageEnhance.Color(image).enhance(random.uniform(1 - saturation, 1 + saturation))
        else:
            image = TF.adjust_hue(image, random.uniform(-hue, hue))  # pyright: ignore
    return image


class TrainingViews(TorchDataset):
    """The endless stream of augmented images; item `position` is a function of seed and position alone.

    Args:
        mean: colour that normalisation takes to zero, of RGB in 0..1, for `views.padding` mean.
        order: shuffled, every epoch in an order of its own; balanced, in which images of rare classes come more often
            (`balance.repeat_factors`) and every class is pasted equally often; listed, as the data set has them.
        paste: the probability that something of another image is pasted onto a view that has a mask.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ViewsConfig,
        seed: int,
        *,
        contrast: bool = False,
        masks: bool = False,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        order: ImageOrder = "shuffled",
        paste: float = 0.0,
    ) -> None:
        red, green, blue = (round(255 * value) if config.padding == "mean" else 0 for value in mean)
        self.padding = red, green, blue
        self.dataset, self.config, self.seed = dataset, config, seed
        self.contrast, self.masks, self.order, self.paste = contrast, masks, order, paste
        self._epoch: tuple[int, np.ndarray] | None = None
        self._factors = repeat_factors(dataset) if order == "balanced" else None
        self._donors = Donors(dataset, balanced=order == "balanced")

    def index(self, position: int) -> int:
        """Which image stands at `position`: every epoch has an order of its own, unless images come as listed."""
        epoch, place = divmod(position, len(self.dataset))
        if self.order == "listed":
            return place
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng([self.seed, 1, epoch])
            factors, count = self._factors, len(self.dataset)
            images = random.permutation(count) if factors is None else balanced_epoch(factors, random)
            self._epoch = epoch, images
        return int(self._epoch[1][place])

    def __getitem__(self, position: int) -> dict[str, object]:
        """The item at `position`; an image that does not open is named in `bad`, and the next that does stands in."""
        bad: list[str] = []
        for place in range(position, position + len(self.dataset)):
            try:
                item = self._item(self.index(place), np.random.default_rng([self.seed, 2, position]))
                if self.masks and self.paste:
                    self._paste(item, np.random.default_rng([self.seed, 3, position]))
                return {**item, "bad": tuple(bad)}
            except TagmaskError as error:
                bad.append(str(error))
        raise TagmaskError(f"none of the {len(self.dataset)} training images opens; the first: {bad[0]}")

    def _item(self, index: int, random: np.random.Generator) -> dict[str, Any]:
        record, config = self.dataset.records[index], self.config
        image = open_image(record.image)
        crop = draw_crop(image.height, image.width, config, random)
        if config.colours is not None:
            image = _jittered(image, config.colours, random)
        view = take_crop(image, crop, config.crop, Image.Resampling[config.resample.upper()], self.padding)
        item: dict[str, Any] = {"images": _tensor(view), "boxes": crop.box, "index": index}
        tags, known = np.zeros(len(self.dataset.classes), np.float32), np.ones(len(self.dataset.classes), np.float32)
        tags[list(record.tags)], known[list(record.unknown)] = 1, 0
        item |= {"tags": tags, "known": known}
        if self.masks:
            assert record.mask is not None
            ground_truth = Image.fromarray(record.mask.load(image.height, image.width))
            label = take_crop(ground_truth, crop, config.crop, Image.Resampling.NEAREST, IGNORE)
            item["masks"] = torch.from_numpy(np.asarray(label).astype(np.int64))
        if self.contrast:
            strong, flipped = strong_view(view, config, random)
            item |= {"weak": _tensor(weak_view(image, config, random)), "strong": _tensor(strong), "flipped": flipped}
        return item

    def _paste(self, item: dict[str, Any], random: np.random.Generator) -> None:
        """Paste something of another image onto the view, or nothing where no image looked at has what fits."""
        if random.random() >= self.paste:
            return
        for index, label in [self._donors.draw(random) for _ in range(DONORS)]:
            if not self.dataset.records[index].tags:
                continue
            try:
                donor = self._item(index, random)
            except TagmaskError:
                continue  # is named when its own turn comes
            found = cut_out(donor["masks"].numpy(), random, label)
            if found and paste_onto(item["images"], item["masks"], donor["images"], *found, random):
                item["tags"][found[0] - 1] = item["known"][found[0] - 1] = 1
                return


class BatchPositions:
    """Positions of the batches of one process from a given step on; process r takes the r-th part of each batch."""

    def __init__(self, batch: int, start: int, stop: int, rank: int = 0, processes: int = 1) -> None:
        self.share, self.batch, self.rank = batch // processes, batch, rank
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            first = step * self.batch + self.rank * self.share
            yield list(range(first, first + self.share))


def collate(items: Sequence[dict[str, object]]) -> Batch:
    """Stack items of `TrainingViews`; views stay uint8, `Batch.normalise` finishes them on the device."""

    def stack(name: str) -> torch.Tensor | None:
        return torch.stack([item[name] for item in items]) if name in items[0] else None  # pyright: ignore

    tags = torch.from_numpy(np.stack([item["tags"] for item in items]))  # pyright: ignore
    contrast = "flipped" in items[0]
    return Batch(
        images=stack("images"),  # pyright: ignore
        tags=tags,
        known=torch.from_numpy(np.stack([item["known"] for item in items])),  # pyright: ignore
        boxes=torch.tensor([item["boxes"] for item in items]),
        indices=torch.tensor([item["index"] for item in items]),
        most_tags=max(1, int(tags.sum(dim=1).max())),
        masks=stack("masks"),
        weak=stack("weak"),
        strong=stack("strong"),
        strong_flipped=torch.tensor([item["flipped"] for item in items]) if contrast else None,
        bad=tuple(message for item in items for message in item["bad"]),  # pyright: ignore
    )


def training_loader(views: TrainingViews, positions: BatchPositions, workers: int, *, pin: bool = False) -> DataLoader:
    """Batches in order of step."""
    return DataLoader(
        views,
        batch_sampler=positions,  # pyright: ignore
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # the default one belongs to the method, and a resumed run must find it untouched
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_shared,
    )


def _leave_shared(worker: int) -> None:
    """Keep a loader process from walking through what it has in common with the main one.

    Each record that the garbage collector touched would be copied: of a million, half a gigabyte in each process.
    """
    gc.freeze()


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
