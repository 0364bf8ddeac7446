"""WebDataset shards as a source of training: read in place, as the folder of their files would be."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask.data import members
from tagmask.data.check import check_dataset
from tagmask.data.dataset import Dataset
from tagmask.data.images import image_size, open_image
from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image, write_table

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def picture(shade: int, form: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(shade).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT, mtime: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime  # pyright: ignore
            archive.addfile(member, io.BytesIO(content))
    return path


def tags_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {record.name: tuple(dataset.classes[tag] for tag in record.tags) for record in dataset.records}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mtime", [0, 1.5])
def test_every_kind_of_tar_gives_the_images_and_tags_that_were_put_in(tmp_path, form, mtime):
    long = f"{'very/' * 30}{'long' * 15}"
    contents = {key: picture(shade) for shade, key in enumerate(("a", "sub/b", "ü", long))}
    files = {}
    for key, content in contents.items():
        files |= {f"{key}.PNG": content, f"{key}.json": json.dumps({"tags": ["cat", key[0]]}).encode()}
    archive = write_tar(tmp_path / "set" / "train-0.tar", files, FORMATS[form], mtime)
    for path in (archive, archive.parent):
        dataset = read_dataset(path)
        assert tags_of(dataset) == {f"train-0/{key}": tuple(sorted({"cat", key[0]})) for key in contents}
        assert {record.split for record in dataset.records} == {"train"}
        for record, content in zip(dataset.records, contents.values(), strict=True):
            expected = np.asarray(Image.open(io.BytesIO(content)))
            np.testing.assert_array_equal(np.asarray(open_image(record.image)), expected)
            assert image_size(record.image) == (24, 16)


def test_tags_of_each_kind_and_samples_that_are_wrong(tmp_path):
    (tmp_path / "classes.txt").write_text("cow\ncat\ndog\n")
    good = {
        "a.jpg": picture(1, "JPEG"),
        "a.json": b'{"label": [1, 2], "split": "val"}',
        "b.webp": picture(2, "WEBP"),
        "b.cls": b"0\n",
        "c.png": picture(3),
        "c.json": b'{"tags": "cat;~dog"}',
    }
    write_tar(tmp_path / "x.tar", good)
    dataset = read_dataset(tmp_path)
    assert [(record.name, record.tags, record.unknown, record.split) for record in dataset.records] == [
        ("x/a", (1, 2), (), "val"),
        ("x/b", (0,), (), ""),
        ("x/c", (1,), (2,), ""),
    ]
    wrong = {"d.txt": b"?", "e.png": picture(4), "e.json": b"{", "f.png": b"no image", "f.cls": b"cow", "g.png": b""}
    write_tar(tmp_path / "y.tar", wrong | {"g.cls": b"cow", "../h.png": picture(5), "../h.cls": b"cow"})
    found = {error.where.rpartition(" ")[2]: error for error in check_dataset(tmp_path).errors}
    assert {key: error.kind for key, error in found.items()} == {
        "d": "row",
        "e": "row",
        "f": "unreadable image",
        "g": "unreadable image",
        "../h": "name",
    }
    assert "no image among its files (txt)" in found["d"].message
    assert "tags cannot be read (is no JSON" in found["e"].message
    assert "none of the formats" in found["f"].message
    assert "empty (0 bytes)" in found["g"].message


def test_a_shard_that_is_cut_short_is_named(tmp_path):
    whole = write_tar(tmp_path / "x.tar", {"a.png": picture(1), "a.cls": b"cow", "b.png": picture(2), "b.cls": b"cat"})
    record = read_dataset(whole).records[1]
    content = whole.read_bytes()
    whole.write_bytes(content[:2500])
    with pytest.raises(TagmaskError, match=r"x\.tar.*cut short"):
        read_dataset(whole)
    with pytest.raises(TagmaskError, match=r"b\.png: damaged or cut short; copy .*x\.tar again"):
        open_image(record.image)
    whole.unlink()
    with pytest.raises(TagmaskError, match=r"x\.tar: cannot be read \(No such file"):
        open_image(record.image)
    whole.write_bytes(b"no tar file" * 100)
    with pytest.raises(TagmaskError, match=r"x\.tar: is no whole tar file"):
        read_dataset(whole)


def test_a_file_too_large_for_memory_is_not_read(tmp_path, monkeypatch):
    whole = write_tar(tmp_path / "x.tar", {"a.png": picture(1), "a.cls": b"cow"})
    monkeypatch.setattr(members, "LARGEST", 100)
    with pytest.raises(TagmaskError, match=r"a\.png: has \d+ bytes, and from an archive at most 100 are read; unpack"):
        open_image(read_dataset(whole).records[0].image)


def test_archives_beside_other_data_are_let_alone(tmp_path):
    write_tar(tmp_path / "downloaded.tar", {"readme": b"?"})
    write_table(tmp_path, "image,tags\na.jpg,cat\n")
    assert [record.name for record in read_dataset(tmp_path).records] == ["a"]
    write_image(tmp_path / "cat" / "a.jpg")
    write_image(tmp_path / "dog" / "b.jpg")
    (tmp_path / "tags.csv").unlink()
    assert read_dataset(tmp_path, classes=("cat", "dog")).classes == ("cat", "dog")


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_of_images_in_shards_has_them_and_their_names(tmp_path, form):
    files = {f"{key}.png": picture(shade) for shade, key in enumerate(("0", "a/0", "b/0", f"{'long/' * 30}0"))}
    files |= {name.replace(".png", ".cls"): b"cow" for name in files}
    for shard in ("train-0", "train-1"):
        write_tar(tmp_path / "shards" / f"{shard}.tar", dict(sorted(files.items())), FORMATS[form])
    expected = read_dataset(tmp_path / "shards").records
    rows = [f"../{record.image.relative_to(tmp_path)},cow\n" for record in expected]
    table = write_table(tmp_path / "reviews", "image,tags\n" + "".join(rows), images="")
    found = read_dataset(table).records
    assert [record.name for record in found] == [record.name for record in expected]
    assert {"train-0/0", "train-1/0", "train-0/a/0", "train-0/b/0"} < {record.name for record in found}
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(open_image(own.image)), np.asarray(open_image(other.image)))


def test_a_table_of_shards_that_were_written_anew_is_an_error(tmp_path):
    archive = write_tar(tmp_path / "x.tar", {"a.png": picture(1), "a.cls": b"cow"})
    image = read_dataset(archive).records[0].image.relative_to(tmp_path)
    table = write_table(tmp_path, f"image,tags\n{image},cow\n", images="")
    assert read_dataset(table).records[0].name == "x/a"
    write_tar(archive, {"a.png": picture(2, size=(25, 16)), "a.cls": b"cow"})
    with pytest.raises(TagmaskError, match=r"no image file .*a\.png; the archive is gone or was written anew"):
        read_dataset(table)
    archive.unlink()
    with pytest.raises(TagmaskError, match="the archive is gone"):
        read_dataset(table)
    archive.write_bytes(b"no tar file" * 100)
    with pytest.raises(TagmaskError, match=r"x\.tar: is no whole tar file"):
        read_dataset(table)


def test_a_training_from_shards_is_that_from_the_folder(tmp_path):
    names, files, rows = [f"{number:02}" for number in range(12)], {}, ["image,tags,split\n"]
    (tmp_path / "folder" / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        content, tags = picture(number), ["cow", "cat"][: 1 + number % 2]
        (tmp_path / "folder" / "images" / f"{name}.png").write_bytes(content)
        rows.append(f"{name}.png,{';'.join(tags)},train\n")
        files |= {f"{name}.png": content, f"{name}.json": json.dumps({"tags": tags}).encode()}
    (tmp_path / "folder" / "tags.csv").write_text("".join(rows))
    listed = list(files.items())
    for shard in range(2):
        write_tar(tmp_path / "shards" / f"train-{shard}.tar", dict(listed[12 * shard : 12 * shard + 12]))
    small = ("backbone.options={img_size: 32, patch_size: 8, embed_dim: 48, depth: 2, num_heads: 2}", "views.crop=32")
    length = ("training.steps=6", "training.batch=4", "training.log_every=1", "training.workers=1")
    losses = {}
    for source in ("folder", "shards"):
        run = tagmask.train(
            tmp_path / source, recipe="cam/demo", output=tmp_path / "runs" / source, overrides=(*small, *length)
        )
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses[source] = [line["loss"] for line in lines if "loss" in line]
        assert len(losses[source]) == 6
    assert losses["shards"] == losses["folder"]
    models = [tagmask.load(tmp_path / "runs" / source).method.state_dict() for source in losses]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
