"""CAMs joined by what the CAMs of all images say of places that look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import tagmask
from tagmask.data.cam_files import read_cams, write_cams
from tagmask.data.dataset import Record
from tagmask.engine.alike import fit_clusters, strengthened, write_alike
from tagmask.engine.stage import DONE
from tagmask.errors import TagmaskError
from tagmask.models.create import create_network
from tagmask.recipes.load import Recipe
from tests.conftest import staged_recipe

GRID = 8  # places along a side of an image
GREEN, BROWN, BLUE = (40, 160, 40), (120, 70, 30), (40, 60, 200)


def colours(image: Image.Image) -> Tensor:
    """Return the mean colours of 8 x 8 parts of an image as its features."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(pixels, GRID)


def picture(path: Path, upper: tuple[int, ...], lower: tuple[int, ...], seed: int) -> Path:
    """Save an image of two colours, one above the other, with some noise."""
    pixels = np.zeros((64, 64, 3), np.int64)
    pixels[:32], pixels[32:] = upper, lower
    pixels += np.random.default_rng(seed).integers(-6, 7, pixels.shape)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def pasture(tmp_path: Path) -> tuple[list[Record], Path]:
    """Eight brown cows (class 0) above grass, eight blue birds (class 1) above grass, eight images of grass alone.

    The CAM of a cow leaves out its left half and takes in the left half of the grass.
    """
    records: list[Record] = []
    for number in range(24):
        kind, name = number % 3, f"image-{number}"
        upper = (BROWN, BLUE, GREEN)[kind]
        path = picture(tmp_path / f"{name}.png", upper, GREEN, number)
        records.append(Record(name, path, (kind,) if kind < 2 else ()))
        cam = torch.zeros(1, 16, 16)
        if kind == 1:
            cam[:, :8] = 0.9
        elif number < 12:
            cam[:, :8, 8:], cam[:, 8:, :8] = 0.9, 0.9
        else:
            cam[:, :8] = 0.9
        write_cams(tmp_path / "cams" / f"{name}.npz", cam if kind < 2 else cam[:0], [kind] if kind < 2 else [])
    return records, tmp_path / "cams"


def test_what_a_cam_left_out_comes_back_and_the_grass_fades(pasture: tuple[list[Record], Path], tmp_path: Path) -> None:
    records, cams = pasture
    assert write_alike(cams, records, tmp_path / "alike", colours, counted=[1, 2]) == []
    joined, ids = read_cams(tmp_path / "alike" / "image-0.npz")
    assert ids.tolist() == [1]
    missing, grass = float(joined[0, 2:6, 2:6].mean()), float(joined[0, 10:14, 2:6].mean())
    before, _ = read_cams(cams / "image-0.npz")
    assert float(before[0, 2:6, 2:6].mean()) == 0
    assert float(before[0, 10:14, 2:6].mean()) == pytest.approx(0.9, abs=1e-3)
    # Brown is lit up by 0.9 in half of four cows and all of four others, grass in half of four of its 32 places.
    brown, green = 0.9 * 6 / 8, 0.9 * 2 / 32
    highest = 0.9 + brown
    # Clusters are small here, some of the noise of a few images.
    assert missing == pytest.approx(brown / highest, abs=0.05)
    assert grass == pytest.approx((0.9 + green) / highest, abs=0.05)
    assert read_cams(tmp_path / "alike" / "image-2.npz")[0].shape == (0, 16, 16)


def test_classes_that_do_not_count_neither_change_nor_say_where_things_are(
    pasture: tuple[list[Record], Path], tmp_path: Path
) -> None:
    records, cams = pasture
    write_alike(cams, records, tmp_path / "alike", colours, counted=[1])
    for number in (1, 4):
        before, after = (read_cams(folder / f"image-{number}.npz")[0] for folder in (cams, tmp_path / "alike"))
        assert torch.equal(before, after)


def test_what_is_there_is_kept_and_what_cannot_be_read_is_named(
    pasture: tuple[list[Record], Path], tmp_path: Path
) -> None:
    records, cams = pasture
    kept = tmp_path / "alike" / "image-0.npz"
    write_cams(kept, torch.full((1, 2, 2), 0.25), [0])
    (cams / "image-3.npz").unlink()
    records[4].image.write_bytes(b"no image")
    reasons = write_alike(cams, records, tmp_path / "alike", colours, counted=[1, 2])
    assert len(reasons) == 2
    assert "image-3.npz" in reasons[0]
    assert "image-4.png" in reasons[1]
    assert read_cams(kept)[0].shape == (1, 2, 2)
    assert {path.stem for path in (tmp_path / "alike").iterdir()} == {
        record.name for number, record in enumerate(records) if number not in (3, 4)
    }


def test_clusters_are_the_same_each_time_and_part_colours(pasture: tuple[list[Record], Path]) -> None:
    records, _ = pasture
    first, second = fit_clusters(records, colours), fit_clusters(records, colours)
    assert first is not None
    assert second is not None
    found = first.of(colours(Image.open(records[0].image)))
    assert np.array_equal(found, second.of(colours(Image.open(records[0].image))))
    assert found.shape == (GRID, GRID)
    assert not {*found[:4].ravel()} & {*found[4:].ravel()}


def test_no_image_that_opens_leaves_nothing(tmp_path: Path) -> None:
    record = Record("a", tmp_path / "a.png", (0,))
    (tmp_path / "a.png").write_bytes(b"no image")
    reasons = write_alike(tmp_path, [record], tmp_path / "alike", colours, counted=[1])
    assert len(reasons) == 1
    assert "a.png" in reasons[0]


@given(st.integers(0, 3), st.integers(0, 2**31), st.sets(st.integers(1, 4)))
def test_joined_cams_keep_their_range_and_dark_ones_stay_dark(count: int, seed: int, counted: set[int]) -> None:
    torch.manual_seed(seed)
    cams, ids = torch.rand(count, 5, 7), torch.arange(1, count + 1)
    if count:
        cams[0] = 0
    joined = strengthened(cams, ids, torch.rand(3, 4), counted)
    assert joined.shape == cams.shape
    assert bool(((joined >= 0) & (joined <= 1)).all())
    for cam, after, label in zip(cams, joined, ids.tolist(), strict=True):
        if label not in counted or not cam.any():
            assert torch.equal(cam, after)
        else:
            assert float(after.max()) == pytest.approx(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of the tiny network of the staged recipes."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    network = create_network(staged_recipe("cam").backbone)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def recipe_with(weights: Path | None, alike: bool = True, **changes: object) -> Recipe:
    plain = staged_recipe("cam")
    backbone = plain.backbone.model_dump() | {"weights": None if weights is None else str(weights)}
    refine = {"name": "crf", "alpha": 4, "alike": alike}
    return staged_recipe("cam", **{"backbone": backbone, "refine": refine, **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != DONE}


def test_a_run_makes_its_masks_of_the_joined_cams(cooccur: Path, tmp_path: Path, weights: Path) -> None:
    run = tagmask.train(cooccur, recipe=recipe_with(weights), output=tmp_path / "run")
    names = {path.name for path in (run / "cams").glob("*.npz")}
    assert {path.name for path in (run / "alike").glob("*.npz")} == names
    assert [row.stage for row in tagmask.evaluate_stages(run)] == ["cams", "cams-fixed", "alike", "refine", "segmenter"]
    # What is missing is made again, and the same.
    before, masks = files(run / "alike"), files(run / "refine")
    for name in sorted(before)[::2]:
        (run / "alike" / name).unlink()
    (run / "alike" / DONE).unlink()
    tagmask.train(cooccur, recipe=recipe_with(weights), output=run)
    assert files(run / "alike") == before
    # Its masks are those that the joined CAMs make, and not those of the CAMs.
    with pytest.raises(TagmaskError, match=r"refine\.alike"):
        tagmask.train(cooccur, recipe=recipe_with(weights, alike=False), output=run, from_stage="refine")
    tagmask.train(cooccur, recipe=recipe_with(weights, alike=False), output=run, from_stage="cams")
    assert not (run / "alike").exists() or not files(run / "alike")
    assert files(run / "refine") != masks
    tagmask.train(cooccur, recipe=recipe_with(weights), output=run, from_stage="alike")
    assert files(run / "alike") == before
    assert files(run / "refine") == masks


def test_recipes_that_cannot_join_cams_say_why(cooccur: Path, tmp_path: Path, weights: Path) -> None:
    with pytest.raises(TagmaskError, match=r"refine\.alike: needs pretrained weights \(backbone\.weights\)"):
        tagmask.train(cooccur, recipe=recipe_with(None), output=tmp_path / "run")
    no_background = {"untagged": "negative", "background": False}
    with pytest.raises(TagmaskError, match=r"refine\.alike: .*background"):
        tagmask.train(cooccur, recipe=recipe_with(weights, data=no_background), output=tmp_path / "run")
    assert not (tmp_path / "run" / "classifier").exists()
