from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.ops.lattice import LatticeSum, PermutohedralLattice, colour_features, position_features
from tests.ops.exact import ExactGaussian

seeds = st.integers(0, 2**16)


def random_points(seed: int, batch: int, dimensions: int, count: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, dimensions, count, generator=generator) * spread
    return features, torch.rand(batch, count, 3, generator=generator)


def filter_one_by_one(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lattice of one batch entry with a dictionary of vertices, point after point. features (N, d)."""
    count, d = features.shape
    table: dict[tuple[int, ...], np.ndarray] = {}
    touched = []
    for point, value in zip(features.astype(np.float64), values, strict=True):
        scaled = [point[i] * np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2)) for i in range(d)]
        elevated = np.array([sum(scaled[j:]) - (j * scaled[j - 1] if j else 0) for j in range(d + 1)])
        origin = (d + 1) * np.round(elevated / (d + 1))
        order = sorted(range(d + 1), key=lambda j: (-(elevated - origin)[j], j))
        rank = np.argsort(order) + int(origin.sum()) // (d + 1)
        origin = origin + (d + 1) * (rank < 0) - (d + 1) * (rank > d)
        rank = rank % (d + 1)
        weights = np.zeros(d + 2)
        for j in range(d + 1):
            offset = (elevated[j] - origin[j]) / (d + 1)
            weights[d - rank[j]] += offset
            weights[d + 1 - rank[j]] -= offset
        weights[0] += 1 + weights[d + 1]
        for k in range(d + 1):
            key = tuple(int(r) + (k if rank[j] <= d - k else k - d - 1) for j, r in enumerate(origin))
            table[key] = table.get(key, 0) + weights[k] * value
            touched.append((key, weights[k]))
    for j in range(d + 1):
        step = np.ones(d + 1, int)
        step[j] = -d
        table = {
            key: own + 0.5 * sum(table.get(tuple(int(x) for x in np.array(key) + way * step), 0) for way in (1, -1))
            for key, own in table.items()
        }
    gain = 1 / (1 + 2.0**-d)
    read = [weight * gain * table[key] for key, weight in touched]
    return np.array(read).reshape(count, d + 1, -1).sum(axis=1)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_equals_a_lattice_built_point_by_point(dimensions: int, seed: int) -> None:
    features, values = random_points(seed, 2, dimensions, 40, spread=0.7)
    filtered = PermutohedralLattice.of(features).filter(values)
    for entry in range(2):
        expected = filter_one_by_one(features[entry].t().numpy(), values[entry].numpy())
        np.testing.assert_allclose(filtered[entry].numpy(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(seed=seeds, dimensions=st.sampled_from([2, 5]), batch=st.integers(1, 3))
def test_room_for_every_vertex_changes_nothing(seed: int, dimensions: int, batch: int) -> None:
    features, values = random_points(seed, batch, dimensions, 30)
    compact = PermutohedralLattice.of(features).filter(values)
    torch.testing.assert_close(PermutohedralLattice.of(features, compact=False).filter(values), compact)


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_points_may_come_in_any_order(seed: int) -> None:
    features, values = random_points(seed, 1, 5, 50, spread=0.7)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    mixed = PermutohedralLattice.of(features[:, :, order]).filter(values[:, order])
    torch.testing.assert_close(mixed, PermutohedralLattice.of(features).filter(values)[:, order])


@settings(max_examples=8, deadline=None)
@given(seed=seeds, factor=st.floats(-3, 3))
@pytest.mark.parametrize("kernel", [PermutohedralLattice, ExactGaussian])
def test_linear_in_the_values(kernel: type, seed: int, factor: float) -> None:
    features, values = random_points(seed, 2, 2, 40)
    other = values.flip(1)
    filtering = kernel.of(features).filter
    torch.testing.assert_close(
        filtering(values + factor * other), filtering(values) + factor * filtering(other), rtol=1e-4, atol=1e-4
    )


def test_follows_the_exact_sum_up_to_a_gain() -> None:
    features = position_features(24, 24, 3.0, torch.device("cpu"))[None]
    values = torch.rand(1, 24 * 24, 2, generator=torch.Generator().manual_seed(0))
    ratio = PermutohedralLattice.of(features).filter(values) / ExactGaussian.of(features).filter(values)
    inner = ratio.view(24, 24, 2)[6:-6, 6:-6]
    assert float(inner.std() / inner.mean()) < 0.05


def test_nearly_symmetric() -> None:
    features, values = random_points(3, 1, 2, 400)
    lattice = PermutohedralLattice.of(features)
    left = (values[..., 0] * lattice.filter(values[..., 1:2])[..., 0]).sum()
    right = (values[..., 1] * lattice.filter(values[..., 0:1])[..., 0]).sum()
    torch.testing.assert_close(left, right, rtol=0.02, atol=0)


@pytest.mark.parametrize("kernel", [PermutohedralLattice, ExactGaussian])
def test_scaled_multiplies_before_and_after(kernel: type) -> None:
    features, values = random_points(1, 2, 2, 30)
    factor = torch.rand(2, 30, generator=torch.Generator().manual_seed(1))
    plain = kernel.of(features)
    expected = plain.filter(values * factor[..., None]) * factor[..., None]
    torch.testing.assert_close(plain.scaled(factor).filter(values), expected)


def test_a_sum_is_its_parts_added() -> None:
    first, values = random_points(1, 2, 2, 30)
    second, _ = random_points(2, 2, 5, 30)
    parts = [PermutohedralLattice.of(features) for features in (first, second)]
    expected = parts[0].filter(values) + parts[1].filter(values)
    torch.testing.assert_close(LatticeSum.of(*parts).filter(values), expected)


def test_far_points_do_not_mix() -> None:
    features = torch.tensor([[[0.0, 100.0], [0.0, -100.0]]])
    filtered = PermutohedralLattice.of(features).filter(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert torch.equal(filtered[0] > 0, torch.eye(2, dtype=torch.bool))


def test_features_are_x_y_then_colours() -> None:
    images = torch.arange(2 * 3 * 2 * 3).view(2, 3, 2, 3)
    features = colour_features(images, 2.0, 10.0)
    assert features.shape == (2, 5, 6)
    assert features[1, 0].tolist() == [0, 0.5, 1, 0, 0.5, 1]
    assert features[1, 1].tolist() == [0, 0, 0, 0.5, 0.5, 0.5]
    torch.testing.assert_close(features[1, 2:], images[1].flatten(1) / 10)


def test_features_of_double_precision_filter_single() -> None:
    features, values = random_points(6, 1, 2, 20)
    filtered = PermutohedralLattice.of(features.double()).filter(values)
    assert filtered.dtype == torch.float32
    torch.testing.assert_close(filtered, PermutohedralLattice.of(features).filter(values))


def test_two_sums_of_three_lattices_and_of_one() -> None:
    parts, values = [], random_points(1, 2, 2, 30)[1]
    for seed, dimensions in ((1, 2), (2, 5), (3, 1)):
        parts.append(PermutohedralLattice.of(random_points(seed, 2, dimensions, 30)[0]))
    for some in (parts, parts[1:], parts[:1]):
        expected = torch.stack([part.filter(values) for part in some]).sum(dim=0)
        torch.testing.assert_close(LatticeSum.of(*some).filter(values), expected)


def test_values_may_lie_in_memory_in_any_order() -> None:
    features, values = random_points(7, 2, 2, 30)
    lattice = PermutohedralLattice.of(features)
    scattered = values.mT.contiguous().mT
    assert torch.equal(lattice.filter(scattered), lattice.filter(values))


@pytest.mark.parametrize("compact", [True, False])
def test_tables_are_of_four_bytes_and_consistent(compact: bool) -> None:
    """Memory is what bounds the size of an image, so no index takes eight."""
    features, _ = random_points(8, 2, 3, 25)
    lattice = PermutohedralLattice.of(features, compact=compact)
    for table in (lattice.vertices, lattice.splat_points, lattice.splat_offsets, lattice.neighbours):
        assert table.dtype == torch.int32
    assert lattice.weights.dtype == lattice.splat_weights.dtype == torch.float32
    room = len(lattice.splat_offsets) - 2
    assert lattice.vertices.shape == lattice.weights.shape == (50, 4)
    assert lattice.splat_points.shape == lattice.splat_weights.shape == (200,)
    assert lattice.neighbours.shape == (4, room + 1, 3)
    assert room == (int(lattice.vertices.max()) + 1 if compact else 200)
    torch.testing.assert_close(lattice.weights.sum(dim=1), torch.full((50,), 1 / (1 + 2.0**-3)))
    # Each vertex is its own middle, and if another is ahead of it, then it is behind that one.
    for table in lattice.neighbours[:, : int(lattice.vertices.max()) + 1].long():
        own, ahead, _ = table.unbind(1)
        assert own.tolist() == list(range(len(table)))
        exists = ahead < len(table)
        assert torch.equal(table[ahead[exists], 2], own[exists])


def test_a_lattice_with_room_for_all_asks_nothing_of_the_host() -> None:
    """Torch's `meta` device has no values: whoever reads one back, or mixes devices, is refused."""
    lattice = PermutohedralLattice.of(torch.zeros(2, 5, 30, device="meta"), compact=False)
    both = LatticeSum.of(lattice, PermutohedralLattice.of(torch.zeros(2, 2, 30, device="meta"), compact=False))
    values = torch.zeros(2, 30, 4, device="meta")
    for filtered in (lattice.filter(values), both.filter(values)):
        assert filtered.shape == (2, 30, 4)
        assert filtered.device.type == "meta"
