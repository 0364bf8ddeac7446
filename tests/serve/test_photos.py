from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tagmask.api import Model
from tagmask.errors import TagmaskError
from tagmask.recipes.load import load_recipe
from tagmask.serve import photos
from tagmask.serve.photos import Photo, Photos, find_photos, inside, open_photo


def _image(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def test_a_pipe_among_the_photographs_is_passed_over(model: Model, tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert list(find_photos(model, tmp_path).by_name) == ["a"]
    with pytest.raises(TagmaskError, match=r"b\.png: is no regular file"):
        open_photo(tmp_path / "b.png")


def test_own_data_of_the_run_comes_with_tags_and_splits(model: Model, cooccur: Path) -> None:
    photos = find_photos(model, None)
    assert len(photos.by_name) == 24
    assert photos.root.resolve() == cooccur.resolve()
    assert all(photo.tags for photo in photos.by_name.values())
    assert {photo.split for photo in photos.by_name.values()} == {"train", "val", "test"}


def test_data_set_in_the_folder_gives_tags(model: Model, tmp_path: Path) -> None:
    first, second = model.classes[:2]
    _image(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in model.classes))
    (tmp_path / "tags.csv").write_text(f"image,tags,split\na.png,{first};~{second},train\n")
    photo = find_photos(model, tmp_path).by_name["a"]
    assert (photo.tags, photo.unknown, photo.split) == ((first,), (second,), "train")
    assert find_photos(model, tmp_path / "tags.csv").by_name["a"] == photo


def test_where_the_run_found_its_images_does_not_count_for_others(model: Model, tmp_path: Path) -> None:
    _image(tmp_path / "images" / "a.png")
    (tmp_path / "tags.csv").write_text(f"image,tags\na.png,{model.classes[0]}\n")
    recipe = load_recipe(model.run.recipe.model_dump(mode="json"), [f"data.image_folder={tmp_path / 'elsewhere'}"])
    moved = Model(replace(model.run, recipe=recipe), model.method)
    assert find_photos(moved, tmp_path).by_name["a"].path == tmp_path / "images" / "a.png"


def test_plain_folder_has_no_tags_but_names_of_class_folders(model: Model, tmp_path: Path) -> None:
    assert {"boat", "train"} <= set(model.classes)  # `train` is a split's name, too
    _image(tmp_path / "holiday" / "a.png")
    _image(tmp_path / "train" / "boat" / "2024" / "b.jpg")
    _image(tmp_path / ".hidden" / "c.png")
    photos = find_photos(model, tmp_path).by_name
    assert {name: photo.tags for name, photo in photos.items()} == {"holiday/a": None, "train/boat/2024/b": ("boat",)}


def test_images_of_one_stem_keep_their_suffix_as_masks_do(model: Model, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        _image(tmp_path / name)
    assert set(find_photos(model, tmp_path).by_name) == {"a.png", "a.jpg", "b"}


def test_table_of_the_review_is_no_data_set(model: Model, tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    _image(tmp_path / "b.png")
    review = tmp_path / "review.csv"
    review.write_text("image,tags,split,verdict\na.png,,,keep\n")
    assert set(find_photos(model, tmp_path, review=review).by_name) == {"a", "b"}


def test_nothing_there_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match="no such folder; give --images"):
        find_photos(model, tmp_path / "nowhere")
    with pytest.raises(TagmaskError, match="no images in it"):
        find_photos(model, tmp_path)


def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret = _image(tmp_path / "secret" / "a.png")
    root = tmp_path / "photos"
    own = _image(root / "b.png")
    link = root / "c.png"
    link.symlink_to(secret)
    assert inside(own, root) == own.resolve()
    for path in (link, root / ".." / "secret" / "a.png", secret):
        with pytest.raises(TagmaskError, match="leads out of"):
            inside(path, root)


def test_pixel_limit_holds_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _image(tmp_path / "a.png", (50, 40))
    monkeypatch.setattr(photos, "MAX_PIXELS", 2000)
    assert open_photo(path).size == (50, 40)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"IDAT") + 6])  # the header alone: decoding it would fail in another way
    monkeypatch.setattr(photos, "MAX_PIXELS", 1999)
    with pytest.raises(TagmaskError, match="50 x 40 is"):
        open_photo(path)


def test_upload_that_is_no_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    with pytest.raises(TagmaskError, match="none of the formats"):
        open_photo(path)


def test_examples_are_spread_and_shown_by_browsers(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    photos = {f"{index:02}": Photo(_image(root / f"{index:02}.png")) for index in range(10)}
    photos["raw"] = Photo(_image(root / "raw.tif"))
    assert [path.name for path in Photos(root, photos).examples(5)] == [f"{index:02}.png" for index in range(0, 10, 2)]
    assert len(Photos(root, photos).examples(99)) == 10
    outside = Photos(root, {"x": Photo(_image(tmp_path / "x.png"))})
    assert outside.examples(5) == []


def test_how_the_run_read_its_table_counts_for_others_unless_they_say_otherwise(model: Model, tmp_path: Path) -> None:
    first, second = model.classes[:2]
    _image(tmp_path / "a.png")
    table = tmp_path / "tags.csv"
    table.write_text(f"image;tags\na.png;{first}, {second}\n")
    recipe = load_recipe(
        model.run.recipe.model_dump(mode="json"), ["data.separator=semicolon", "data.tag_separator=comma"]
    )
    told = Model(replace(model.run, recipe=recipe), model.method)
    assert find_photos(told, tmp_path).by_name["a"].tags == (first, second)
    with pytest.raises(TagmaskError, match="columns are separated by ';'"):
        find_photos(model, tmp_path)
    overrides = ["data.separator=;", "data.tag_separator=comma"]
    assert find_photos(model, tmp_path, overrides=overrides).by_name["a"].tags == (first, second)
    with pytest.raises(TagmaskError, match=r"--set data\.classes: belongs to the trained run"):
        find_photos(model, tmp_path, overrides=["data.classes=[cow]"])
