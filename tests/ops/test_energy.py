from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.ops.energy import dense_energy
from tagmask.ops.lattice import PermutohedralLattice, colour_features
from tests.ops.exact import ExactGaussian

GAIN = 0.475  # of the reference's lattice against the exact Gaussian sum


def random_step(seed: int, batch: int = 2, classes: int = 3, size: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, logits, labels, boxes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 4, 4, generator=generator) * 255
    images = F.interpolate(coarse, size=(size, size), mode="bilinear")
    logits = torch.randn(batch, classes, size, size, generator=generator)
    labels = torch.randint(classes, (batch, size, size), generator=generator)
    labels[torch.rand(batch, size, size, generator=generator) < 0.3] = 255
    boxes = torch.tensor([[0, size, 2, size - 2]] * batch)
    return images, logits.requires_grad_(), labels, boxes


def by_definition(
    images: Tensor,
    logits: Tensor,
    labels: Tensor,
    boxes: Tensor,
    kernel: type[PermutohedralLattice] | type[ExactGaussian],
) -> tuple[Tensor, Tensor]:
    """The energy, and the scores' pull, at half size; the boxes lie on even pixels."""
    scores = F.avg_pool2d(logits.softmax(dim=1), 2)
    inside = torch.zeros_like(scores[:, :1])
    for entry, (top, bottom, left, right) in enumerate((boxes // 2).tolist()):
        inside[entry, :, top:bottom, left:right] = 1
    gate = (inside - scores.amax(dim=1, keepdim=True)).clamp_min(0)
    gate = torch.where(labels[:, None, ::2, ::2] == 255, 1.0, gate)
    features = colour_features(images[:, :, ::2, ::2], 50.0, 15.0)
    filtered = kernel.of(features).filter((scores * inside).flatten(2).mT).mT.reshape(scores.shape)
    return -(scores * inside * gate * filtered).sum() / len(images), filtered * gate * inside


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), batch=st.integers(1, 3))
def test_equals_its_definition_and_pulls_by_it(seed: int, batch: int) -> None:
    images, logits, labels, boxes = random_step(seed, batch)
    loss = dense_energy(images, logits, labels, boxes, weight=0.5)
    loss.backward()
    again = logits.detach().clone().requires_grad_()
    expected, pull = by_definition(images, again, labels, boxes, PermutohedralLattice)
    torch.testing.assert_close(loss.detach(), 0.5 * expected.detach(), rtol=1e-5, atol=1e-6)
    scores = F.avg_pool2d(again.softmax(dim=1), 2)
    scores.backward(-2 * 0.5 * pull.detach() / batch)
    torch.testing.assert_close(logits.grad, again.grad, rtol=1e-4, atol=1e-6)


def test_near_the_exact_kernel_times_its_gain() -> None:
    images, logits, labels, boxes = random_step(0, size=48)
    loss = dense_energy(images, logits, labels, boxes, weight=1.0)
    exact, _ = by_definition(images, logits, labels, boxes, ExactGaussian)
    torch.testing.assert_close(loss, GAIN * exact, rtol=0.1, atol=0)


def test_nothing_pulls_outside_the_box() -> None:
    images, logits, labels, _ = random_step(1)
    dense_energy(images, logits, labels, torch.tensor([[4, 12, 0, 16], [0, 0, 0, 0]]), weight=1.0).backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, :4].any()
    assert not logits.grad[0, :, 12:].any()
    assert logits.grad[0, :, 4:12].any()
    assert not logits.grad[1].any()


def test_sure_pixels_pull_only_where_their_label_is_ignored() -> None:
    images, _, labels, boxes = random_step(2)
    logits = torch.zeros(2, 3, 16, 16)
    logits[:, 0] = 60
    labels[0], labels[1] = 0, 255
    losses = [
        float(dense_energy(images[i : i + 1], logits[i : i + 1], labels[i : i + 1], boxes[:1], weight=1.0))
        for i in (0, 1)
    ]
    assert losses[0] == 0
    assert losses[1] < 0


def test_mean_over_images() -> None:
    images, logits, labels, boxes = random_step(3)
    together = dense_energy(images, logits, labels, boxes, weight=1.0)
    apart = [
        dense_energy(images[i : i + 1], logits[i : i + 1], labels[i : i + 1], boxes[i : i + 1], weight=1.0)
        for i in (0, 1)
    ]
    torch.testing.assert_close(together, torch.stack(apart).mean())


def test_lower_where_alike_pixels_agree() -> None:
    images = torch.zeros(1, 3, 16, 16)
    images[..., 8:] = 255.0
    side = torch.zeros(1, 2, 16, 16)
    side[:, 0, :, :8] = side[:, 1, :, 8:] = 2.0
    mixed = side[..., torch.arange(16).view(2, 8).t().flatten()]
    labels = torch.full((1, 16, 16), 255)
    boxes = torch.tensor([[0, 16, 0, 16]])
    assert float(dense_energy(images, side, labels, boxes)) < float(dense_energy(images, mixed, labels, boxes))


def test_constants_of_seco() -> None:
    step = random_step(4)
    explicit = dense_energy(*step, weight=1e-7, sigma_rgb=15.0, sigma_xy=100.0, scale=0.5)
    assert float(explicit.detach()) < 0
    assert torch.equal(dense_energy(*step), explicit)


def test_equals_its_definition_at_sizes_that_the_scale_does_not_divide() -> None:
    images, logits, labels, boxes = random_step(5, size=23)
    loss = dense_energy(images, logits, labels, boxes, weight=1.0, sigma_rgb=20.0, sigma_xy=40.0, scale=0.3)
    scores = F.interpolate(logits.softmax(dim=1), size=(6, 6), mode="bilinear", align_corners=False)
    rows = torch.arange(6) * 23 // 6
    outside = (rows < 2) | (rows >= 21)
    scores = scores.masked_fill(outside, 0.0)
    gate = torch.where(outside, 0.0, 1 - scores.amax(dim=1, keepdim=True))
    gate = torch.where(labels[:, None, rows[:, None], rows] == 255, 1.0, gate)
    features = colour_features(images[:, :, rows[:, None], rows], 40 * 0.3, 20.0)
    filtered = PermutohedralLattice.of(features).filter(scores.flatten(2).mT).mT.reshape(scores.shape)
    torch.testing.assert_close(loss, -(scores * gate * filtered).sum() / 2)
