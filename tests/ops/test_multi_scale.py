"""Several scales at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tagmask.data.batch import Batch
from tagmask.methods.registry import build_method
from tagmask.ops.multi_scale import multi_scale_logits, multi_scale_loss, shrink_labels
from tests.conftest import tiny_recipe


def network(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images, 8)


def test_the_largest_of_all_scales_comes_last() -> None:
    images = torch.randn(2, 3, 64, 80)
    logits = multi_scale_logits(network, images)
    assert [tuple(own.shape[-2:]) for own in logits] == [(8, 10), (4, 5), (6, 7), (8, 10)]
    torch.testing.assert_close(logits[0], network(images))
    assert all((logits[-1] >= logits[0]).flatten())
    enlarged = F.interpolate(logits[1], size=(8, 10), mode="bilinear", align_corners=False)
    assert (logits[-1] >= enlarged - 1e-6).all()
    torch.testing.assert_close(multi_scale_logits(network, torch.ones(1, 3, 64, 64))[-1], torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize("size", [(41, 41), (21, 31), (7, 5)])
def test_labels_shrink_as_pillow_s(size: tuple[int, int]) -> None:
    labels = torch.randint(256, (2, 321, 289))  # odd: no centre lies between two pixels
    shrunk = shrink_labels(labels, size)
    for own, original in zip(shrunk, labels, strict=True):
        image = Image.fromarray(original.numpy().astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(own.numpy(), np.asarray(image))


def test_loss_is_the_sum_of_means_over_labelled_pixels() -> None:
    logits = [torch.randn(2, 4, 6, 5), torch.randn(2, 4, 3, 3)]
    labels = torch.randint(4, (2, 12, 10))
    labels[:, :4] = 255
    expected = sum(F.cross_entropy(own, shrink_labels(labels, own.shape[-2:]), ignore_index=255) for own in logits)
    torch.testing.assert_close(multi_scale_loss(logits, labels), torch.as_tensor(expected))
    assert float(multi_scale_loss(logits, torch.full_like(labels, 255))) == 0


def test_the_segmenter_learns_from_copies_and_answers_with_the_largest() -> None:
    recipe = tiny_recipe({"name": "full", "copies": [0.5, 0.75]})
    torch.manual_seed(0)
    method = build_method(recipe, 3).eval()
    images = torch.randn(2, 3, 48, 48)
    masks = torch.randint(0, 4, (2, 48, 48))
    masks[:, :8] = 255

    def plain(views: torch.Tensor) -> torch.Tensor:
        return method.network.decoder(method.network.backbone(views).patches)

    with torch.no_grad():
        sizes = [(48, 48), (24, 24), (36, 36)]
        maps = [plain(F.interpolate(images, size=size, mode="bilinear", align_corners=False)) for size in sizes]
        maps.append(torch.stack([F.interpolate(own, size=(6, 6), mode="bilinear") for own in maps]).amax(dim=0))
        torch.testing.assert_close(method.scores(images), maps[-1])
        expected = sum(F.cross_entropy(own, shrink_labels(masks, own.shape[-2:]), ignore_index=255) for own in maps)
        tags = torch.ones(2, 3)
        boxes = torch.tensor([[0, 48, 0, 48]] * 2)
        batch = Batch(
            images=images, tags=tags, known=tags, boxes=boxes, indices=torch.arange(2), most_tags=3, masks=masks
        )
        losses = method(batch, 0)
    torch.testing.assert_close(losses["loss"], torch.as_tensor(expected))
    assert set(losses) == {"loss", "seg"}


def test_copies_are_enlarged_and_the_largest_is_taken_pixel_by_pixel() -> None:
    images = torch.randn(2, 3, 36, 50, generator=torch.Generator().manual_seed(3))
    scales = (0.5, 0.75)
    copies = [F.interpolate(images, size=(int(36 * s), int(50 * s)), mode="bilinear") for s in scales]
    maps = [F.avg_pool2d(each, 4) for each in (images, *copies)]
    given = multi_scale_logits(lambda views: F.avg_pool2d(views, 4), images)
    for own, expected in zip(given, maps, strict=False):
        torch.testing.assert_close(own, expected)
    large = [F.interpolate(own, size=(9, 12), mode="bilinear", align_corners=False) for own in maps]
    torch.testing.assert_close(given[-1], torch.stack(large).amax(dim=0))
    assert len(multi_scale_logits(network, images, (0.4,))) == 3


def test_the_label_at_the_centre_of_each_cell() -> None:
    labels = torch.arange(24).view(1, 4, 6)
    assert shrink_labels(labels, (2, 3)).tolist() == [[[7, 9, 11], [19, 21, 23]]]
    assert shrink_labels(labels, (1, 1)).tolist() == [[[15]]]
    assert torch.equal(shrink_labels(labels, (4, 6)), labels)
