from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tagmask.data.images import open_image
from tagmask.data.mended import with_mended
from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tagmask.serve.photos import Photo, Photos
from tagmask.serve.photos import _of_dataset as photos_of
from tagmask.serve.review import VERDICTS, Candidate, Review, find_candidates
from tests.data.readers.test_shards import picture, write_tar

CLASSES = ("cat", "cow", "dog")


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    folder = tmp_path / "photos"
    folder.mkdir()
    tags = {"a": ("cat",), "b": ("dog", "cow"), "c": ("cow",), "d": ("cat",)}
    for name in tags:
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    by_name = {name: Photo(folder / f"{name}.png", own, (), "train") for name, own in tags.items()}
    return Photos(folder, by_name)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "labelled"
    folder.mkdir()
    for name in "abcd":
        Image.new("P", (4, 4)).save(folder / f"{name}.png")
    (folder / "classes.txt").write_text("cat\ncow\ndog\n")
    (folder / "confidence.csv").write_text("image,confidence,classes\na,0.9,cat\nb,0.2,dog\nc,0.5,\nd,,cat\n")
    return folder


@pytest.fixture
def candidates(masks: Path, photos: Photos) -> list[Candidate]:
    return find_candidates(masks, photos, CLASSES)[0]


def test_least_confident_comes_first(candidates: list[Candidate]) -> None:
    assert [candidate.name for candidate in candidates] == ["d", "b", "c", "a"]
    assert [candidate.confidence for candidate in candidates] == [None, 0.2, 0.5, 0.9]


def test_tags_nobody_gave_are_read_off_the_mask(masks: Path, photos: Photos) -> None:
    untagged = Photos(photos.root, {name: Photo(photo.path) for name, photo in photos.by_name.items()})
    found = {candidate.name: candidate for candidate in find_candidates(masks, untagged, CLASSES)[0]}
    assert found["b"].tags == ("dog",)
    assert not found["b"].tagged


def test_masks_that_cannot_be_shown_are_counted(masks: Path, photos: Photos) -> None:
    (masks / "a.png").unlink()
    fewer = Photos(photos.root, {name: photo for name, photo in photos.by_name.items() if name != "b"})
    found, left_out = find_candidates(masks, fewer, CLASSES)
    assert [candidate.name for candidate in found] == ["d", "c"]
    assert len(left_out) == 2
    assert "no file" in left_out[0]
    assert "has no image 'b'" in left_out[1]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("confidence.csv", None, "has no confidence.csv"),
        ("confidence.csv", "name,score\na,1\n", "expected the columns image, confidence and classes"),
        ("confidence.csv", "image,confidence,classes\na,much,cat\n", "row 2: confidence 'much'"),
        ("confidence.csv", "image,confidence,classes\na\n", "row 2: 1 cells, expected 3"),
        ("confidence.csv", "image,confidence,classes\n../photos/a,0.5,cat\n", "leads out of the folder"),
        ("confidence.csv", "image,confidence,classes\nx,0.5,cat\n", "no mask to review"),
        ("classes.txt", "dog\ncat\ncow\n", "other classes than the run's"),
    ],
)
def test_folder_of_something_else_is_an_error(
    masks: Path, photos: Photos, file: str, text: str | None, message: str
) -> None:
    (masks / file).unlink() if text is None else (masks / file).write_text(text)
    with pytest.raises(TagmaskError, match=message):
        find_candidates(masks, photos, CLASSES)


def test_no_folder_is_an_error(tmp_path: Path, photos: Photos) -> None:
    with pytest.raises(TagmaskError, match="no such folder"):
        find_candidates(tmp_path / "nowhere", photos, CLASSES)


def test_every_decision_is_on_disk_and_training_reads_it(candidates: list[Candidate], tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    review = Review(candidates, file, CLASSES)
    assert not file.exists()
    review.decide("d", "keep", ["cat"])
    assert file.read_text() == (
        "image,tags,split,verdict\n"
        "photos/a.png,cat,train,\n"
        "photos/b.png,dog;cow,train,\n"
        "photos/c.png,cow,train,\n"
        "photos/d.png,cat,train,keep\n"
    )
    review.decide("b", "tags", ["dog", "cat"])
    review.decide("c", "redo", ["cow"])
    dataset = read_dataset(file)
    assert {record.name[-1]: record.tags for record in dataset.records} == {
        "a": (0,),
        "b": (0, 2),
        "c": (1,),
        "d": (0,),
    }
    assert dataset.splits == ("train",)
    assert review.counts() == {"keep": 1, "redo": 1, "tags": 1, "edited": 0}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["review.csv"]


def test_images_without_given_tags_stand_in_the_table_once_decided(masks: Path, photos: Photos, tmp_path: Path) -> None:
    untagged = Photos(photos.root, {name: Photo(photo.path) for name, photo in photos.by_name.items()})
    review = Review(find_candidates(masks, untagged, CLASSES)[0], tmp_path / "review.csv", CLASSES)
    review.decide("b", "tags", ["cow"])
    assert (tmp_path / "review.csv").read_text() == "image,tags,split,verdict\nphotos/b.png,cow,,tags\n"


def test_unknown_tags_stay_unknown_until_given(masks: Path, photos: Photos, tmp_path: Path) -> None:
    photos.by_name["a"] = Photo(photos.root / "a.png", ("cat",), ("dog", "cow"), "")
    candidates = find_candidates(masks, photos, CLASSES)[0]
    review = Review(candidates, tmp_path / "review.csv", CLASSES)
    review.decide("a", "tags", ["cat", "dog"])
    assert "photos/a.png,cat;dog;~cow,,tags\n" in (tmp_path / "review.csv").read_text()
    assert Review(candidates, tmp_path / "review.csv", CLASSES).tags("a") == ("cat", "dog")


def test_review_goes_on_where_it_was_left(candidates: list[Candidate], tmp_path: Path) -> None:
    first = Review(candidates, tmp_path / "review.csv", CLASSES)
    first.decide("d", "keep", ["cat"])
    first.decide("b", "tags", ["cow"])
    again = Review(candidates, tmp_path / "review.csv", CLASSES)
    assert again.decisions == first.decisions
    assert again.undecided() == "c"
    assert again.undecided(after="a") == "c"
    again.decide("c", "keep", ["cow"])
    again.decide("a", "keep", ["cat"])
    assert again.undecided() is None


def test_neighbours_go_round(candidates: list[Candidate], tmp_path: Path) -> None:
    review = Review(candidates, tmp_path / "review.csv", CLASSES)
    assert review.beside("d", 1) == "b"
    assert review.beside("d", -1) == "a"
    assert review.beside("a", 1) == "d"
    with pytest.raises(TagmaskError, match="not among the masks"):
        review.beside("../../etc/passwd", 1)


def test_only_some_are_gone_through(candidates: list[Candidate], tmp_path: Path) -> None:
    review = Review(candidates, tmp_path / "review.csv", CLASSES)  # d (unknown), b 0.2, c 0.5, a 0.9
    assert review.choose(tag="cow") == 2
    assert review.chosen == ["b", "c"]
    assert [review.undecided(), review.undecided("b"), review.undecided("c")] == ["b", "c", "b"]
    assert [review.beside("c", 1), review.beside("b", -1), review.position("c")] == ["b", "c", 1]
    review.decide("b", "redo", ["dog", "cow"])
    assert review.choose(most=0.5) == 3
    assert review.chosen == ["d", "b", "c"]
    assert review.undecided("d") == "c"
    assert review.choose(verdict="none") == 3
    assert review.chosen == ["d", "c", "a"]
    # What is not chosen has neighbours, too.
    assert [review.beside("b", 1), review.beside("b", -1), review.undecided("b")] == ["c", "d", "c"]
    assert review.choose(verdict="redo", tag="dog") == 1
    assert review.undecided() == "b"
    review.decide("b", "keep", ["dog", "cow"])
    assert review.undecided() is None
    assert review.choose(verdict="redo") == 0
    assert review.chosen == ["d", "b", "c", "a"]
    assert len(review.file.read_text().splitlines()) == 5  # the table lists all the same


def test_changed_tags_are_not_lost_by_another_button(candidates: list[Candidate], tmp_path: Path) -> None:
    review = Review(candidates, tmp_path / "review.csv", CLASSES)
    for verdict in ("keep", "redo"):
        with pytest.raises(TagmaskError, match="tags were changed"):
            review.decide("a", verdict, ["cat", "dog"])
    with pytest.raises(TagmaskError, match="tags are as they were"):
        review.decide("a", "tags", ["cat"])
    assert not review.decisions
    assert not review.file.exists()
    review.decide("a", "tags", ["dog"])
    review.decide("a", "redo", ["dog"])
    assert "photos/a.png,dog,train,redo\n" in review.file.read_text()


def test_file_of_something_else_is_never_written(candidates: list[Candidate], tmp_path: Path) -> None:
    file = tmp_path / "tags.csv"
    for text, message in (
        ("image,tags,split\nphotos/a.png,cat,train\n", "something else wrote it"),
        ("", "something else wrote it"),
        ("image,tags,split,verdict\nelsewhere/x.png,cat,,keep\n", "a review of other images"),
        ("image,tags,split,verdict\nphotos/a.png,cat,,fine\n", "row 2: verdict 'fine'"),
        ("image,tags,split,verdict\nphotos/a.png,cat;horse,,keep\n", "row 2: tag 'horse'"),
        ("image,tags,split,verdict\nphotos/a.png,cat\n", "row 2: 2 cells"),
    ):
        file.write_text(text)
        with pytest.raises(TagmaskError, match=message):
            Review(candidates, file, CLASSES)
        assert file.read_text() == text


def test_file_changed_behind_the_page_is_not_written(candidates: list[Candidate], tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    review = Review(candidates, file, CLASSES)
    file.write_text("a letter")
    with pytest.raises(TagmaskError, match="changed by something else"):
        review.decide("a", "keep", ["cat"])
    assert file.read_text() == "a letter"
    assert not review.decisions


def test_rows_of_other_images_are_kept(candidates: list[Candidate], tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    file.write_text("image,tags,split,verdict\nold/x.png,cat,val,keep\nphotos/a.png,cat,train,keep\n")
    review = Review(candidates, file, CLASSES)
    review.decide("b", "redo", ["cow", "dog"])
    lines = file.read_text().splitlines()
    assert lines[1] == "photos/a.png,cat,train,keep"
    assert lines[-1] == "old/x.png,cat,val,keep"


def test_classes_and_files_a_table_cannot_hold_are_errors(candidates: list[Candidate], tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match="cannot stand in a table"):
        Review(candidates, tmp_path / "review.csv", ("cat;dog",))
    for file in (tmp_path / "review.txt", tmp_path / "no" / "where" / "review.csv"):
        with pytest.raises(TagmaskError, match=r"expected a \.csv file"):
            Review(candidates, file, CLASSES)


def test_masks_beside_the_table_would_be_taken_for_the_ground_truth(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    (tmp_path / "labelled").rename(tmp_path / "masks")
    with pytest.raises(TagmaskError, match="for the ground truth"):
        Review(candidates, tmp_path / "review.csv", CLASSES)
    review = Review(candidates, tmp_path / "reviews" / "first.csv", CLASSES)
    review.decide("a", "keep", ["cat"])
    assert "../photos/a.png,cat,train,keep\n" in review.file.read_text()
    assert len(read_dataset(review.file)) == 4


def test_training_reads_a_review_of_images_in_shards(tmp_path: Path) -> None:
    tags = {"a/0": b"cat", "b/0": b"dog;cow"}
    for shard in ("train-0", "train-1"):
        parts = [(f"{key}.png", picture(len(key + shard))) for key in tags] + [
            (f"{key}.cls", tags[key]) for key in tags
        ]
        write_tar(tmp_path / "shards" / f"{shard}.tar", dict(sorted(parts)))
    (tmp_path / "shards" / "classes.txt").write_text("\n".join(CLASSES))
    dataset = read_dataset(tmp_path / "shards")
    masks = tmp_path / "labelled"
    for record in dataset.records:
        (masks / record.name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("P", (24, 16)).save(masks / f"{record.name}.png")
    lines = [f"{record.name},0.5,cat\n" for record in dataset.records]
    (masks / "confidence.csv").write_text("image,confidence,classes\n" + "".join(lines))
    candidates, left_out = find_candidates(masks, photos_of(dataset, tmp_path / "shards"), CLASSES)
    assert not left_out
    review = Review(candidates, tmp_path / "reviews" / "first.csv", CLASSES)
    review.decide("train-1/b/0", "tags", ["dog"])
    again = read_dataset(review.file, classes=CLASSES)
    wanted = {record.name: record for record in dataset.records}
    assert {record.name for record in again.records} == set(wanted)
    for record in again.records:
        assert record.tags == ((2,) if record.name == "train-1/b/0" else wanted[record.name].tags)
        assert record.split == "train"
        assert open_image(record.image).tobytes() == open_image(wanted[record.name].image).tobytes()
    review.decide("train-0/a/0", "keep", ["cat"])
    kept = [record.name for record in with_mended(again, masks, review.file).records if record.mask is not None]
    assert "train-0/a/0" in kept
    assert Review(candidates, review.file, CLASSES).decisions == review.decisions


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(VERDICTS), st.sets(st.sampled_from(CLASSES))), max_size=8
    )
)
def test_what_is_on_disk_is_what_was_decided(steps: list, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("review")
    names = [
        Candidate(name, folder / "photos" / f"{name}.png", folder / f"{name}.png", 0.5, (CLASSES[0],), tagged=True)
        for name in "abcd"
    ]
    review = Review(names, folder / "review.csv", CLASSES)
    for name, verdict, tags in steps:
        try:
            review.decide(name, verdict, sorted(tags))
        except TagmaskError:
            continue
    assert Review(names, folder / "review.csv", CLASSES).decisions == review.decisions
