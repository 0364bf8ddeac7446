"""Pairs, affinities and the random walk."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.ops.affinity import (
    IGNORE,
    Border,
    affinity_matrix,
    confident_labels,
    pair_affinity,
    pair_labels,
    pair_offsets,
    pair_positions,
    random_walk,
    walk_scores,
    walk_to_labels,
)
from tagmask.ops.labels import with_background


def neighbours(height: int, width: int, border: Border) -> Tensor:
    """How many entries each cell's row of the affinity matrix has, itself included."""
    matrix = affinity_matrix(torch.zeros(2, height, width), border=border)
    return matrix.crow_indices().diff().view(height, width)


def test_numbers_of_offsets_sources_and_pairs() -> None:
    source, target = pair_positions(56, 56)
    assert len(pair_offsets()) == 34
    assert source.shape == (2496,)
    assert target.numel() == 84_864
    assert target.max() < 56 * 56
    assert (target > source).all()


def test_pairs_of_a_map_cut_in_two() -> None:
    labels = torch.zeros(1, 56, 56, dtype=torch.long)
    labels[:, :, 28:] = 3
    labels[:, :4] = IGNORE
    pairs = pair_labels(labels)
    assert [int(part.sum()) for part in pairs] == [37_296, 37_776, 3_264]


def test_skipped_border_leaves_ten_cells_alone() -> None:
    counts = neighbours(12, 15, "skip")
    assert counts[0].tolist() == [1, 1, 1, 1, 35, 36, 37, 38, 39, 39, 39, 5, 4, 3, 2]
    assert counts[-2].tolist() == [1, 2, 4, 6, 8, 10, 12, 13, 12, 10, 8, 6, 4, 2, 1]
    assert counts[-1].tolist() == [1, 1, 2, 3, 4, 5, 6, 6, 6, 5, 4, 3, 2, 1, 1]
    assert counts.max() == 64
    assert (counts == 1).sum() == 10
    assert neighbours(30, 30, "skip").max() == 69


def test_clean_border_joins_every_cell_to_all_within_the_radius() -> None:
    counts = neighbours(12, 15, "keep")
    rows, columns = (
        axis.flatten().float() for axis in torch.meshgrid(torch.arange(12), torch.arange(15), indexing="ij")
    )
    near = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2 < 25
    assert torch.equal(counts.flatten(), near.sum(dim=1))


@pytest.mark.parametrize("border", ["skip", "keep"])
@settings(deadline=None, max_examples=10)
@given(height=st.integers(1, 9), width=st.integers(1, 11), seed=st.integers(0, 99))
def test_matrix_is_symmetric_with_unit_diagonal(border: Border, height: int, width: int, seed: int) -> None:
    features = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    dense = affinity_matrix(features, border=border).to_dense()
    assert torch.equal(dense, dense.t())
    assert torch.equal(dense.diagonal(), torch.ones(height * width))
    flat = features.flatten(1)
    expected = torch.exp(-(flat[:, :, None] - flat[:, None]).abs().mean(dim=0))
    torch.testing.assert_close(dense, torch.where(dense > 0, expected, 0.0))


def test_constant_features_have_affinity_one() -> None:
    assert torch.equal(pair_affinity(torch.full((2, 5, 8, 12), 3.0)), torch.ones(2, 34, 16))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), logt=st.integers(0, 6), beta=st.sampled_from([1.0, 2.5, 8.0]))
def test_steps_equal_the_power_of_the_transition_matrix(seed: int, logt: int, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 7, 11, generator=generator).double()
    scores = torch.rand(3, 77, generator=generator).double()
    affinity = affinity_matrix(features)
    transition = affinity.to_dense() ** beta
    transition = transition / transition.sum(dim=0)
    expected = scores @ torch.linalg.matrix_power(transition, 2**logt)
    torch.testing.assert_close(random_walk(affinity, scores, beta=beta, logt=logt), expected)


@pytest.mark.parametrize("border", ["skip", "keep"])
def test_walk_keeps_constant_planes_and_isolated_cells(border: Border) -> None:
    affinity = affinity_matrix(torch.randn(4, 9, 12), border=border)
    scores = torch.rand(2, 9 * 12)
    scores[0] = 0.7
    walked = random_walk(affinity, scores)
    torch.testing.assert_close(walked[0], scores[0], rtol=1e-4, atol=0)  # what 256 steps round
    alone = neighbours(9, 12, border).flatten() == 1
    assert int(alone.sum()) == (10 if border == "skip" else 0)
    torch.testing.assert_close(walked[:, alone], scores[:, alone])


def test_no_step_along_no_affinity_changes_nothing() -> None:
    scores = torch.rand(3, 6)
    torch.testing.assert_close(random_walk(torch.eye(6), scores, logt=0), scores)


def test_walk_fills_a_region_and_drops_what_leaks() -> None:
    """Two thirds of a homogeneous square are lit, and a cell outside: the walk gives the square and nothing else."""
    features = torch.zeros(1, 12, 12)
    features[:, 2:8, 3:9] = 4.0
    cams = torch.zeros(1, 96, 96)
    cams[0, 16:48, 24:72] = 0.9
    cams[0, 80:88, 80:88] = 0.9
    labels = walk_to_labels(affinity_matrix(features, border="keep"), cams, torch.tensor([7]), 16)[0]
    inside = F.interpolate((features > 0).float()[None], scale_factor=8)[0, 0].bool()
    agreement = ((labels == 7) == inside).float().mean()
    assert agreement > 0.9
    assert set(labels.unique().tolist()) == {0, 7}


@pytest.mark.parametrize("size", [(90, 107), (8, 8), (5, 3), (64, 40)])
def test_no_tag_and_all_zero_cams_are_background(size: tuple[int, int]) -> None:
    height, width = size
    affinity = affinity_matrix(torch.rand(4, -(-height // 8), -(-width // 8)))
    none = walk_to_labels(affinity, torch.zeros(0, *size), torch.zeros(0, dtype=torch.long), 4, 16)
    dark = walk_to_labels(affinity, torch.zeros(2, *size), torch.tensor([1, 4]), 4, 16)
    assert torch.equal(none, torch.zeros(2, *size, dtype=torch.long))
    assert torch.equal(dark, none)


def test_several_powers_at_once_are_each_by_itself() -> None:
    affinity, cams, ids = affinity_matrix(torch.rand(4, 8, 9)), torch.rand(2, 60, 70), torch.tensor([1, 4])
    both = walk_to_labels(affinity, cams, ids, 0.5, 3, logt=2)
    assert len(both.unique()) == 3
    assert not torch.equal(*both)
    for labels, alpha in zip(both, (0.5, 3), strict=True):
        assert torch.equal(labels, walk_to_labels(affinity, cams, ids, alpha, logt=2)[0])


def test_a_matrix_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="affinities of 4 cells for a grid of"):
        walk_scores(torch.eye(4), torch.zeros(1, 64, 64), 16)


def test_confident_labels_follow_the_table() -> None:
    low = torch.zeros(3, 8, 40)
    high = torch.zeros(3, 8, 40)
    for cell, (strong, weak) in enumerate([(1, 2), (0, 1), (2, 0), (0, 0)]):
        low[strong, :, 8 * cell : 8 * cell + 8] = 0.9
        high[weak, :, 8 * cell : 8 * cell + 8] = 0.9
    assert confident_labels(low, high).tolist() == [[1, IGNORE, 0, 0, IGNORE]]


def test_an_image_with_nothing_but_background_has_only_background_pairs() -> None:
    labels = confident_labels(torch.ones(1, 80, 96), torch.ones(1, 80, 96))
    pairs = pair_labels(labels[None])
    assert labels.eq(0).all()
    assert pairs.background.all()
    assert not pairs.foreground.any()
    assert not pairs.negative.any()


def test_background_score() -> None:
    cams = torch.tensor([[[0.0, 0.5, 1.0]], [[0.2, 0.1, 0.0]]])
    scores = with_background(cams, 4)
    torch.testing.assert_close(scores[0], torch.tensor([[0.8**4, 0.5**4, 0.0]]))
    assert torch.equal(scores[1:], cams)
    assert torch.equal(with_background(torch.zeros(0, 2, 3), 16), torch.ones(1, 2, 3))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_an_image_of_375_by_500_needs_less_than_200_megabytes() -> None:
    features, cams = torch.rand(448, 47, 63), torch.rand(3, 375, 500)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present size
    before = _resident("VmRSS")
    labels = walk_to_labels(affinity_matrix(features, border="keep"), cams, torch.tensor([1, 2, 3]), 4, 16, logt=4)
    assert labels.shape == (2, 375, 500)
    assert _resident("VmHWM") - before < 200


def _resident(key: str) -> float:
    """In MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def test_the_papers_powers_and_steps() -> None:
    affinity, cams = affinity_matrix(torch.rand(4, 8, 9)), torch.rand(2, 60, 70)
    scores, ids = torch.rand(3, 72), torch.tensor([1, 4])
    settings = {"beta": 8, "logt": 8}
    assert torch.equal(random_walk(affinity, scores), random_walk(affinity, scores, **settings))
    assert torch.equal(walk_scores(affinity, cams, 4), walk_scores(affinity, cams, 4, stride=8, **settings))
    assert torch.equal(
        walk_to_labels(affinity, cams, ids, 0.4), walk_to_labels(affinity, cams, ids, 0.4, stride=8, **settings)
    )
    pooled = F.avg_pool2d(F.pad(with_background(cams, 0.4), (0, 2, 0, 4)), 8)
    for beta, logt in ((2, 1), (1, 3)):
        walked = random_walk(affinity, pooled.flatten(1), beta=beta, logt=logt).view(1, 3, 8, 9)
        torch.testing.assert_close(walk_scores(affinity, cams, 0.4, beta=beta, logt=logt), walked)
        best = F.interpolate(walked, scale_factor=8, mode="bilinear", align_corners=False)[..., :60, :70].argmax(dim=1)
        labels = walk_to_labels(affinity, cams, ids, 0.4, beta=beta, logt=logt)
        assert torch.equal(labels, torch.tensor([0, 1, 4])[best])


def test_grids_of_another_stride() -> None:
    affinity, cams, ids = affinity_matrix(torch.rand(4, 5, 6)), torch.rand(2, 17, 24), torch.tensor([1, 4])
    pooled = F.avg_pool2d(F.pad(with_background(cams, 0.4), (0, 0, 0, 3)), 4)
    walked = random_walk(affinity, pooled.flatten(1), beta=2, logt=1).view(1, 3, 5, 6)
    large = F.interpolate(walked, scale_factor=4, mode="bilinear", align_corners=False)[..., :17, :24]
    labels = walk_to_labels(affinity, cams, ids, 0.4, beta=2, logt=1, stride=4)
    assert torch.equal(labels, torch.tensor([0, 1, 4])[large.argmax(dim=1)])
    for function in (walk_scores, walk_to_labels):
        parameters = inspect.signature(function).parameters
        assert [parameters[name].default for name in ("beta", "logt", "stride")] == [8, 8, 8]


def test_the_refusal_names_both_grids() -> None:
    with pytest.raises(ValueError, match=r"affinities of 4 cells for a grid of \(8, 9\)"):
        walk_scores(torch.eye(4), torch.zeros(1, 64, 72), 16)


def test_pairs_of_a_smaller_radius() -> None:
    assert pair_offsets(2) == [(0, 1), (1, -1), (1, 0), (1, 1)]
    assert pair_offsets(3) == [(0, 1), (0, 2)] + [(1, c) for c in (-2, -1, 0, 1, 2)] + [
        (2, c) for c in (-2, -1, 0, 1, 2)
    ]
    source, target = pair_positions(3, 4, 2)
    assert source.tolist() == [1, 2, 5, 6]
    assert target.tolist() == [[2, 3, 6, 7], [4, 5, 8, 9], [5, 6, 9, 10], [6, 7, 10, 11]]
    labels = torch.tensor([[[0, 0, 1, 1], [0, 255, 1, 2], [0, 0, 0, 2]]])
    background, foreground, negative = pair_labels(labels, 2)
    assert background[0].int().tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert foreground[0].int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert negative[0].int().tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 1]]


def test_confident_labels_are_means_of_cells_and_none_outside() -> None:
    low = torch.zeros(2, 4, 8)
    low[0], low[1, :, :3] = 0.3, 0.5  # three columns of four in the first cell: 0.375 on average
    high = low.clone()
    assert confident_labels(low, high, 4).tolist() == [[1, 0]]
    assert confident_labels(low * 0 + 6e-6, high * 0 + 2e-5, 4).tolist() == [[0, 0]]
    assert confident_labels(low * 0 + 9e-6, high * 0 + 9e-6, 4).tolist() == [[255, 255]]
