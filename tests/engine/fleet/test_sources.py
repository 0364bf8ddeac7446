"""Shards and lists of files to chunks of images, without Ray."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tagmask.engine.fleet.sources import Piece, count_samples, open_chunks
from tagmask.engine.fleet.store import Store
from tagmask.engine.inference import Item
from tagmask.errors import TagmaskError
from tests.data.readers.test_parquet import encoded

CLASSES = ("cat", "dog")


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def chunks_of(piece: Piece, size: int = 2, done: tuple[str, ...] = (), tagged: bool = True) -> list[dict[str, Any]]:
    """Return what is known of each chunk; its files are there while it is asked for."""
    found = []
    for chunk in open_chunks(piece, size, CLASSES, tagged=tagged, is_done=lambda shard: shard in done):
        for item in chunk.items:
            with Image.open(item.path) as image:
                image.load()
        tags = [(item.name, item.tags) for item in chunk.items]
        found.append({"shard": chunk.shard, "items": tags, "refused": chunk.refused, "last": chunk.last})
        paths = [item.path for item in chunk.items]
    assert piece.kind == "files" or not any(path.exists() for path in paths), "nothing stays behind"
    return found


def test_a_tar_shard_is_read_by_samples_and_its_bad_ones_are_named(tmp_path: Path) -> None:
    files = {
        "a.jpg": encoded(),
        "a.json": json.dumps({"tags": ["dog"]}).encode(),
        "sub/b.c.png": b"",  # the ending is `c.png`, which is no image of the sample
        "sub/d.png": encoded("PNG"),
        "sub/d.cls": b"0",
        "e.jpg": encoded(),
        "f.jpg": encoded(),
        "f.json": b'{"tags": ["cow"]}',
        "../g.jpg": encoded(),
        "h.jpg": encoded(),
        "h.json": b"{",
        "i.jpg": encoded(),
        "i.json": b'{"labels": [0, 1]}',
        "a.png": encoded("PNG"),
    }
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of(files))
    piece = Piece("s", "tar", str(path), prefix="s/")
    found = chunks_of(piece, 4)
    assert [own["shard"] for own in found] == ["s-00000", "s-00001", "s-00002"]
    assert [own["last"] for own in found] == [False, False, True]
    assert [item for own in found for item in own["items"]] == [("s/a", (1,)), ("s/sub/d", (0,)), ("s/i", (0, 1))]
    refused = dict(pair for own in found for pair in own["refused"])
    assert set(refused) == {"s/sub/b", "s/e", "s/f", "s/../g", "s/h", "s/a"}
    assert "no image" in refused["s/sub/b"]
    assert "has no tags" in refused["s/e"]
    assert "'cow' is no class" in refused["s/f"]
    assert "'..'" in refused["s/../g"]
    assert "tags cannot be read" in refused["s/h"]
    assert "comes twice" in refused["s/a"]
    assert count_samples(piece) == 9
    untagged = chunks_of(piece, 4, tagged=False)
    assert [name for own in untagged for name, tags in own["items"] if tags is None] == [
        *("s/a", "s/sub/d"),
        *("s/e", "s/f", "s/i"),
    ], "without tags only names and missing images are refused"
    again = chunks_of(piece, 4, done=("s-00000", "s-00002"))
    assert [bool(own["items"]) for own in again] == [False, True, False], "what is done is passed over in its place"


def test_a_tar_that_is_cut_short_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of({f"{number}.png": encoded("PNG") for number in range(3)})[:2000])
    [found] = chunks_of(Piece("s", "tar", str(path)), 8, tagged=False)
    assert [name for name, _ in found["items"]] == ["0"]
    [(name, reason)] = found["refused"]
    assert name == "s-rest"
    assert str(path) in reason
    assert "cut short" in reason


def test_parquet_files_hold_images_or_name_them(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "beside.jpg").write_bytes(encoded())
    rows = [
        {"bytes": encoded(), "path": "x/one.jpg"},
        {"bytes": None, "path": "beside.jpg"},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": None, "path": "../beside.jpg"},
        {"bytes": encoded("PNG"), "path": None},
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": rows, "tags": [["cat"], ["cat", "dog"], [], [], None]}), path)
    piece = Piece("rows", "parquet", str(path))
    found = chunks_of(piece)
    assert [own["shard"] for own in found] == ["rows-00000", "rows-00001", "rows-00002"]
    assert [item for own in found for item in own["items"]] == [("x/one", (0,)), ("beside", (0, 1))]
    refused = dict(pair for own in found for pair in own["refused"])
    assert set(refused) == {"gone", "../beside", "00000004"}
    assert "cannot be read" in refused["gone"]
    assert count_samples(piece) == 5


def test_a_damaged_parquet_file_ends_the_work_by_name(tmp_path: Path) -> None:
    """It may be whole on the next day; what is noted as bad would never be asked for again."""
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TagmaskError, match=r"rows\.parquet: is no whole parquet file"):
        chunks_of(Piece("rows", "parquet", str(tmp_path / "rows.parquet")))


@pytest.mark.parametrize("place", ["disk", "memory://fleet/photos"])
def test_a_store_writes_reads_and_lists(place: str, tmp_path: Path) -> None:
    if "://" in place:
        pytest.importorskip("fsspec")
    store = Store(tmp_path / "photos" if place == "disk" else place)
    assert store.sizes() == {}
    assert not store.has("a/b.txt")
    store.put("a/b.txt", b"four")
    store.put("c.txt", b"1")
    assert store.has("a/b.txt")
    assert store.sizes() == {"a/b.txt": 4, "c.txt": 1}
    assert store.sizes("a") == {"a/b.txt": 4}
    assert store.size("c.txt") == 1
    found = store.get(["a/b.txt", "none.txt"])
    assert found["a/b.txt"] == b"four"
    assert isinstance(found["none.txt"], FileNotFoundError)
    with store.open("c.txt") as file:
        assert file.read() == b"1"


def test_images_of_an_object_store_are_fetched_and_missing_ones_named() -> None:
    pytest.importorskip("fsspec")
    store = Store("memory://fleet/fetched")
    store.put("x/one.png", encoded("PNG"))
    items = (Item("x/one", Path("x/one.png"), (0,)), Item("two", Path("two.png"), (1,)))
    [found] = chunks_of(Piece("part-000000", "files", store.place, items))
    assert found["items"] == [("x/one", (0,))]
    [(name, reason)] = found["refused"]
    assert name == "two"
    assert "memory://fleet/fetched/two.png: cannot be read" in reason


def test_a_store_that_does_not_answer_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an hour without network would go into the table of bad images, and the run end as if all were well."""
    pytest.importorskip("fsspec")
    store = Store("memory://fleet/silent")
    silent: Callable[..., Any] = lambda paths, on_error: {path: TimeoutError("no answer") for path in paths}  # noqa: E731
    monkeypatch.setattr(store._fs, "cat", silent, raising=False)
    with pytest.raises(TimeoutError):
        store.get(["a.png"])
