"""Which splits are learnt from and which are evaluated on where the recipe does not say."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tagmask import api
from tagmask.data.dataset import Dataset, Record
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig


def dataset(*splits: str) -> Dataset:
    """A record of each split, named like it."""
    return Dataset(tuple(Record(name or "none", Path("x.png"), (0,), split=name) for name in splits), ("cat",))


def names(chosen: Dataset) -> list[str]:
    return [record.name for record in chosen.records]


@pytest.mark.parametrize(
    ("splits", "learnt", "evaluated"),
    [
        (("test", "train", "val"), ["train"], ["val"]),
        (("test", "train"), ["train"], ["test"]),
        (("train", "valid"), ["train"], ["valid"]),
        (("Test", "train2017", "val2017"), ["train2017"], ["val2017"]),
        (("", "val"), ["none"], ["val"]),
        (("train",), ["train"], []),
        (("val",), ["val"], []),
        (("test", "val"), ["test", "val"], []),
        (("left", "right"), ["left", "right"], []),
    ],
)
def test_usual_names(splits: tuple[str, ...], learnt: list[str], evaluated: list[str]) -> None:
    data, config = dataset(*splits), DataConfig()
    assert names(api.training_split(data, config)) == learnt
    assert names(api.evaluation_split(data, config)) == evaluated
    assert names(api.to_evaluate(data, config, None)) == (evaluated or names(data))


def test_the_recipe_says_otherwise() -> None:
    data = dataset("test", "train", "val")
    config = DataConfig(evaluate=("train",))
    assert names(api.training_split(dataset("fold1", "fold2"), DataConfig(evaluate=("fold2",)))) == ["fold1"]
    assert names(api.evaluation_split(data, config)) == ["train"]
    assert names(api.training_split(data, DataConfig(train=("train", "val")))) == ["train", "val"]
    assert names(api.to_evaluate(data, config, ["test"])) == ["test"]


def test_nothing_of_a_held_out_split_is_learnt_by_another_name() -> None:
    records = tuple(Record(name, Path("x.png"), (0,)) for name in "abc")
    groups = {"train": frozenset("a"), "trainval": frozenset("ab"), "val": frozenset("b"), "test": frozenset("c")}
    data = Dataset(records, ("cat",), groups=groups)
    assert names(api.training_split(data, DataConfig())) == ["a"]
    assert names(api.evaluation_split(data, DataConfig())) == ["b"]


def test_tags_that_a_run_does_not_know_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    table = tmp_path / "tags.csv"
    table.write_text("image,tags\na.png,cat;zebra\nb.png,dgo\n")
    # The data are right in themselves: `data check`, to which the error of a wrong row points, would find nothing.
    with pytest.raises(TagmaskError) as caught:
        api.open_data(tmp_path, DataConfig(), ("cat", "dog"))
    assert str(caught.value) == (
        f"{tmp_path}: 2 of its 3 tags are no classes of this run; correct them, or take a run that was trained on "
        "them. The first is 'dgo': did you mean 'dog'?"
    )
    # Of what is wrong in itself each row is named as before.
    table.write_text("image,tags\na.png,zebra\nnone.png,cat\n")
    with pytest.raises(TagmaskError, match=r"tags\.csv row 3: no image file"):
        api.open_data(tmp_path, DataConfig(), ("cat", "dog"))


def test_tags_that_chosen_classes_leave_out_are_told_in_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat;sky\nb.png,sky\nc.png,dog\n")
    chosen = DataConfig(classes=("cat",))
    said = (
        "data.classes leaves out the tags 'sky' (2 images), 'dog' (1 image); 2 images bear no other tag and are left "
        "out, too (--set data.untagged=negative keeps images as known to bear none of the classes)"
    )
    with caplog.at_level("WARNING", "tagmask"):
        assert names(api.open_data(tmp_path, chosen)) == ["a"]
        api.open_data(tmp_path, chosen, quiet=True)
    assert caplog.messages == [said]
    # A run whose training left tags out leaves them out again.
    assert names(api.open_data(tmp_path, chosen, ("cat",))) == ["a"]
    caplog.clear()
    api.open_data(tmp_path, DataConfig(classes=("cat",), untagged="negative"))
    assert caplog.messages == ["data.classes leaves out the tags 'sky' (2 images), 'dog' (1 image)"]


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


def test_how_a_run_read_its_table_does_not_count_for_another_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    write_images(own / "images", "a.png")
    (own / "tags.csv").write_text("image;tags\na.png;cat, dog\n")
    for name in ("cat", "dog"):
        write_images(other / name, f"{name}.png")
    config = DataConfig(path=own, separator=";", tag_separator="comma", tag_source="annotations")
    caplog.set_level("INFO", "tagmask")
    assert names(api.open_data(own / "tags.csv", config, ("cat", "dog"))) == ["a"]
    assert caplog.messages == []
    assert names(api.open_data(other, config, ("cat", "dog"))) == ["cat/cat", "dog/dog"]
    without = "without data.separator=;, data.tag_separator=comma of the run's recipe"
    assert caplog.messages == [f"{other}: is read as folders, {without}"]


def test_a_table_that_is_written_otherwise_is_told_where_the_separator_comes_from(tmp_path: Path) -> None:
    own, other = tmp_path / "own.csv", tmp_path / "set"
    write_images(other / "images", "a.png")
    (other / "tags.csv").write_text("image,tags\na.png,cat;dog\n")
    config = DataConfig(path=own, separator=";", tag_separator="comma")
    with pytest.raises(TagmaskError) as caught:
        api.open_data(other, config, ("cat", "dog"))
    assert str(caught.value) == (
        f"{other / 'tags.csv'} row 1: columns are separated by ','; say so (--set data.separator=',') "
        "(data.separator=;, data.tag_separator=comma of the run's own recipe was taken; for data written otherwise "
        "give --set data.separator=, --set 'data.tag_separator=;', or what is right)"
    )
    mended = config.model_copy(update={"separator": ",", "tag_separator": ";"})
    assert names(api.open_data(other, mended, ("cat", "dog"))) == ["a"]
