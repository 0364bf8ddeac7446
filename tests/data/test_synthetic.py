from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data.synthetic.contexts import CONTEXTS
from tagmask.data.synthetic.objects import THINGS, draw
from tagmask.data.synthetic.scenes import Settings, make_cooccur, make_scene, paste, plan
from tagmask.errors import TagmaskError

SETTINGS = Settings(images=8, size=48, classes=6, meet=0.9, alone=0.2, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plans(settings: Settings, number: int) -> list:
    return [plan(settings, np.random.default_rng([settings.seed, index])) for index in range(number)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cooccur(tmp_path_factory.mktemp("set") / "cooccur", images=20, size=48, seed=3)


def test_same_seed_gives_same_bytes_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    again = contents(make_cooccur(tmp_path / "again", images=20, size=48, seed=3))
    other = contents(make_cooccur(tmp_path / "other", images=20, size=48, seed=4))
    assert contents(made) == again
    assert all(again[name] != other[name] for name in again if name.startswith("images"))


def test_an_image_depends_on_seed_and_number_alone() -> None:
    more = replace(SETTINGS, images=1000)
    assert np.array_equal(make_scene(SETTINGS, 5).image, make_scene(more, 5).image)


def test_tables_agree_with_the_masks(made: Path) -> None:
    classes = (made / "classes.txt").read_text(encoding="utf-8").split()
    assert classes == ["boat", "train", "cow", "aeroplane", "car", "penguin"]
    tags, scenes = rows(made / "tags.csv"), rows(made / "scenes.csv")
    assert [row["split"] for row in tags] == ["train"] * 14 + ["val"] * 2 + ["test"] * 4
    for row, scene in zip(tags, scenes, strict=True):
        with Image.open(made / "masks" / row["image"]) as mask:
            assert mask.mode == "P"
            assert mask.size == (48, 48)
            present = {classes[label - 1] for label in np.unique(np.asarray(mask)) if label}
        with Image.open(made / "images" / row["image"]) as image:
            assert (image.mode, image.size) == ("RGB", (48, 48))
        assert row["image"] == scene["image"]
        assert set(row["tags"].split(";")) == set(scene["objects"].split(";")) == present


@pytest.mark.parametrize("meet", [0.0, 0.6, 1.0])
def test_objects_meet_their_context_as_often_as_asked(meet: float) -> None:
    standing = [
        place for places in plans(replace(SETTINGS, meet=meet), 2000) for place in places if place.thing is not None
    ]
    assert np.mean([place.thing == place.context for place in standing]) == pytest.approx(meet, abs=0.04)
    astray = np.bincount([place.context for place in standing if place.thing != place.context], minlength=6)
    assert astray.sum() == 0 or astray.min() > 0.6 * astray.mean()


@pytest.mark.parametrize("alone", [0.0, 0.35, 1.0])
def test_contexts_stand_alone_as_often_as_asked(alone: float) -> None:
    drawn = plans(replace(SETTINGS, alone=alone), 2000)
    lone = [places for places in drawn if any(place.thing is None for place in places)]
    assert len(lone) / len(drawn) == pytest.approx(alone, abs=0.04)
    for places in lone:
        objects = {place.thing for place in places if place.thing is not None}
        (context,) = {place.context for place in places if place.thing is None}
        assert objects
        assert context not in objects


@pytest.mark.parametrize("seed", range(3))
def test_every_object_of_an_image_is_in_its_mask(seed: int) -> None:
    settings = replace(SETTINGS, classes=8, seed=seed)
    for index in range(40):
        scene = make_scene(settings, index)
        labels, counts = np.unique(scene.mask, return_counts=True)
        assert set(labels[labels > 0]) == {tag + 1 for tag in scene.tags}
        assert counts[labels > 0].min() > 0.02 * scene.mask.size
        assert scene.image.shape == (48, 48, 3)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.name)
def test_mask_marks_the_pixels_the_object_covers(thing) -> None:
    """Over a context of an impossible colour, a pixel is the object's exactly where that colour is half gone."""
    generator = np.random.default_rng(1)
    sprite = draw(thing, generator, area=900.0, limits=(60.0, 60.0))
    picture, mask = np.full((64, 64, 3), -100.0), np.zeros((64, 64), dtype=np.uint8)
    paste(picture, mask, sprite, ((2.0, 62.0), (1.0, 63.0)), 7, generator)
    remaining = picture.mean(axis=2) / -100.0
    sure = np.abs(remaining - 0.5) > 0.03
    assert np.array_equal((mask == 7)[sure], (remaining < 0.5)[sure])
    assert np.isin(mask, (0, 7)).all()
    inside = picture[remaining < 0.0]
    assert len(inside) > 300
    assert inside.max() < 1.4


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.name)
def test_area_asked_for_is_area_drawn(thing) -> None:
    sprite = draw(thing, np.random.default_rng(0), area=1200.0, limits=(500.0, 500.0))
    assert (sprite.coverage >= 0.5).sum() == pytest.approx(1200, rel=0.06)


def test_every_class_has_a_context_of_its_own() -> None:
    assert sorted(thing.context for thing in THINGS) == sorted(CONTEXTS)
    pictures = [[painter(np.random.default_rng(seed), 32) for seed in range(8)] for painter in CONTEXTS.values()]
    assert {picture.shape for row in pictures for picture in row} == {(32, 32, 3)}
    means = np.array(pictures).mean(axis=(1, 2, 3))
    distances = np.linalg.norm(means[:, None] - means[None], axis=-1) + np.eye(len(means))
    assert distances.min() > 0.05


def test_a_set_of_its_own_is_replaced(tmp_path: Path) -> None:
    folder = make_cooccur(tmp_path / "set", images=5, size=32)
    make_cooccur(folder, images=3, size=32)
    assert len(list((folder / "images").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TagmaskError, match=r"thesis\.txt"):
        make_cooccur(tmp_path, images=3, size=32)
    folder = make_cooccur(tmp_path / "set", images=3, size=32)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(TagmaskError, match=r"notes\.txt"):
        make_cooccur(folder, images=3, size=32)
    with pytest.raises(TagmaskError, match="a file stands"):
        make_cooccur(tmp_path / "thesis.txt", images=3, size=32)


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 0), ("size", 8), ("classes", 2), ("classes", 9), ("meet", 1.1), ("alone", -0.1), ("seed", -1)],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(TagmaskError, match=f"{name}={value}"):
        make_cooccur(tmp_path / "set", **{"images": 3, name: value})
    assert not (tmp_path / "set").exists()


def test_a_file_added_to_a_set_is_not_lost(tmp_path: Path) -> None:
    target = make_cooccur(tmp_path / "set", images=4, size=48, classes=3)
    mine = target / "images" / "mine.jpg"
    Image.new("RGB", (4, 4)).save(mine)
    os.utime(mine, ns=(0, 0))  # an old file, as `cp -p` brings it
    with pytest.raises(TagmaskError, match=r"images/mine\.jpg was added or changed since the set was made"):
        make_cooccur(target, images=4, size=48, classes=3)
    assert mine.exists()
    mine.unlink()
    mask = target / "masks" / "000001.png"
    clock = mask.stat().st_mtime_ns
    Image.new("L", (48, 48), 1).save(mask)
    os.utime(mask, ns=(clock, clock))
    with pytest.raises(TagmaskError, match=r"masks/000001\.png was added or changed"):
        make_cooccur(target, images=4, size=48, classes=3)


def test_a_set_whose_files_nobody_listed_is_not_replaced(tmp_path: Path) -> None:
    target = make_cooccur(tmp_path / "set", images=2, size=32, classes=3)
    (target / "cooccur.json").write_text('{"images": 2}')  # as version 0.1 wrote it
    with pytest.raises(TagmaskError, match=r"its cooccur\.json lists no files; name another folder"):
        make_cooccur(target, images=2, size=32, classes=3)
