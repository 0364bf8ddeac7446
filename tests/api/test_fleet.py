"""Labelling by many workers: the masks of the plain path, from every source to every sink, also after kills."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.api.fleet import Fleet, label_fleet
from tagmask.api.write_masks import Written
from tagmask.cli import app
from tagmask.cli.apps import tell
from tagmask.data.masks import Outline, PolygonMask
from tagmask.engine.fleet.output import write_tables
from tagmask.engine.fleet.shards import make_mask, read_manifests, write_shard
from tagmask.engine.fleet.sources import Piece
from tagmask.engine.fleet.store import Store
from tagmask.engine.fleet.work import Job, finish_opened, label_piece, open_piece, score_opened
from tagmask.engine.model import load
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe
from tests.engine.fleet.test_sources import tar_of

IMAGES, SHARD = 300, 128


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ("training.steps=2", "method.decoder_from=0", "inference.size=null", "inference.refine=crf")
    recipe = tiny_recipe("cam", *settings)
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("fleet") / "run")


@pytest.fixture(scope="module")
def photos(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of many small images of two sizes, one of them damaged."""
    folder = tmp_path_factory.mktemp("fleet") / "photos"
    (folder / "sub").mkdir(parents=True)
    given = sorted((cooccur / "images").iterdir())
    for number in range(IMAGES):
        with Image.open(given[number % len(given)]) as image:
            size = (24, 16) if number % 3 else (16, 24)
            image.convert("RGB").resize(size).rotate(number).save(folder / f"sub/{number:04d}.png")
    (folder / "sub/0005.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def plain(run: Path, photos: Path) -> Path:
    """What `predict` writes."""
    output = run.parent / "plain"
    api.predict(run, photos, output=output)
    return output


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a local S3 server, whose address workers inherit."""
    server = pytest.importorskip("moto.server", reason="moto[s3] and flask make the S3 server")
    s3fs = pytest.importorskip("s3fs")
    own = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    own.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*own.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("fleet")
        yield "s3://fleet"
    own.stop()


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """A Ray of two CPUs and a GPU that is none, for the way with one; give its address."""
    ray = pytest.importorskip("ray")
    with suppress(pytest.skip.Exception):
        request.getfixturevalue("bucket")  # before Ray, whose workers have the variables of its start
    os.environ.setdefault("RAY_worker_niceness", "0")
    local = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=2, num_gpus=1, object_store_memory=200 * 2**20, **local)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_is_plain(output: Path, plain: Path) -> None:
    """Compare with what the plain path wrote: masks, classes and tables; more is there for whoever goes on."""
    found, wanted = files_of(output), files_of(plain)
    ledger = "written.jsonl"
    assert sorted(found.pop(ledger).splitlines()) == sorted(wanted[ledger].splitlines())
    assert {name: found.get(name) for name in wanted if name != ledger} == {
        name: content for name, content in wanted.items() if name != ledger
    }
    more = {name for name in found if name not in wanted and not name.startswith("manifests/")}
    assert more == {"job.json", "skipped.csv"}


def job_of(run: Path, output: Path | str, **changes: object) -> tuple[Job, tagmask.Model]:
    model = load(run)
    job = Job(
        config=model.run.recipe.inference,
        source="decoder",
        classes=model.classes,
        background=True,
        tagged=False,
        output=str(output),
        sink="tar",
        shard_size=SHARD,
        max_pixels=10**6,
    )
    return replace(job, **changes), model  # pyright: ignore[reportArgumentType]


def tar_piece(folder: Path, photos: Path, number: int = 20) -> Piece:
    path = folder / "shots.tar"
    path.write_bytes(tar_of({own.name: own.read_bytes() for own in sorted(photos.rglob("*.png"))[:number]}))
    return Piece("shots", "tar", str(path))


def test_a_tar_of_masks_holds_the_plain_files(run: Path, photos: Path, plain: Path, tmp_path: Path) -> None:
    job, model = job_of(run, tmp_path / "out")
    piece = tar_piece(tmp_path, photos)
    [row] = label_piece(job, model.method, piece)
    assert row == {"shard": "shots-00000", "images": 19, "refused": 1}
    with tarfile.open(tmp_path / "out/shots-00000.tar") as archive:
        names = archive.getnames()
        for name in names[::2]:
            member = archive.extractfile(name)
            assert member is not None
            assert member.read() == (plain / "sub" / name).read_bytes()
        said = json.load(archive.extractfile(names[1]))  # pyright: ignore[reportArgumentType]
    assert names[:2] == ["0000.png", "0000.json"]
    assert said["image"] == "0000"
    assert set(said["labels"]) <= {0, 1, 2, 3}
    manifest = read_manifests(Store(job.output))["shots-00000"]
    [[name, reason]] = manifest["refused"]
    assert name == "0005"
    assert reason.startswith("0005: none of the formats"), "not of the temporary file"
    whole = files_of(tmp_path / "out")
    assert list(label_piece(job, model.method, piece)) == [row], "a second worker says the same of it"
    assert files_of(tmp_path / "out") == whole


@pytest.mark.parametrize("tile", [None, 64])
def test_three_steps_write_what_one_does(tile: int | None, run: Path, photos: Path, tmp_path: Path) -> None:
    outputs = []
    if tile:  # some images lie beyond a tile
        larger = tmp_path / "larger"
        larger.mkdir()
        for number, path in enumerate(sorted(photos.rglob("*.png"))[:6]):
            if path.stem == "0005":
                shutil.copy(path, larger)
                continue
            with Image.open(path) as image:
                image.resize((48, 32) if number % 2 else (90, 70)).save(larger / path.name)
        photos = larger
    piece = tar_piece(tmp_path, photos, 30)
    for way in ("one", "three"):
        job, model = job_of(run, tmp_path / way, sink="png")
        job = replace(job, config=job.config.model_copy(update={"tile": tile}))
        if way == "one":
            assert len(list(label_piece(job, model.method, piece))) == 1
        else:
            for opened in open_piece(job, piece):
                finish_opened(job, score_opened(job, model.method, opened))
        outputs.append(files_of(tmp_path / way))
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == (6 if tile else 30), "a mask of each but the damaged one, and a manifest"


@pytest.mark.parametrize(
    ("sink", "label", "told"), [("png", 0, True), ("png", 255, True), ("png", 1, False), ("tar", 0, False)]
)
def test_masks_of_background_alone_are_told(
    sink: str, label: int, told: bool, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, _ = job_of(run, tmp_path, sink=sink)
    masks = [make_mask(f"{number}", np.full((2, 3), label, np.uint8), 0.5, job.sink) for number in range(2)]
    manifest = write_shard(Store(tmp_path), job.sink, "all", masks, [], last=True)
    images, _, plain = write_tables(Store(tmp_path), job, {"all": manifest})
    assert (images, plain) == (2, told)
    tell(Written(tmp_path, images, (), plain=plain))
    said = "2 of 2 masks hold nothing of any class, all is background: look at them first; docs/troubleshooting.md"
    assert (said in capsys.readouterr().out) == told


def test_a_dry_run_counts_and_writes_nothing(run: Path, photos: Path, tmp_path: Path) -> None:
    given = ["predict", str(run), str(photos), "-o", str(tmp_path / "out"), "--engine", "ray", "--dry-run"]
    result = CliRunner().invoke(app, [*given, "--price", "36000000"])
    assert result.exit_code == 0, result.output
    assert f"images: {IMAGES}\n" in result.output
    size = sum(path.stat().st_size for path in photos.rglob("*.png"))
    assert f"to read: {size / 1e9:.3g} GB" in result.output
    # 36 million an hour are 10,000 a second: of 300 images of a thousandth to a tenth of a second on one core each
    cost = float(re.findall(r"cost: about ([0-9.]+)", result.output)[0])
    seconds = float(re.findall(r"at ([0-9.]+) s an image", result.output)[0])
    assert cost == pytest.approx(IMAGES * seconds * 10_000, rel=0.2)
    assert not (tmp_path / "out").exists()
    pieces = tar_piece(tmp_path, photos, 40)
    result = CliRunner().invoke(app, ["predict", str(run), pieces.place, *given[3:]])
    assert "images: 40\n" in result.output, result.output
    assert "cost" not in result.output
    result = CliRunner().invoke(app, [*given, "--overwrite"])
    assert "--overwrite: --engine ray does not know it" in str(result.exception)
    result = CliRunner().invoke(app, [*given, "--shard-size", "100"])
    assert "100 is no multiple of 128" in str(result.exception)


def test_an_output_of_others_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TagmaskError, match=r"holds mine.txt, not written by --engine ray"):
        label_fleet(run, photos, output=tmp_path, tagged=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    shards = tar_piece(tmp_path, photos).place
    with pytest.raises(TagmaskError, match="--split: shards know of no splits; name those of train"):
        label_fleet(run, shards, output=tmp_path / "out", split=["train"])


def test_a_folder_by_two_workers_is_the_plain_folder_after_kills_of_driver_and_worker(
    cluster: str, run: Path, photos: Path, plain: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["predict", str(run), str(photos), "-o", str(output), "--engine", "ray", "--gpus", "0"]
    command += ["--shard-size", str(SHARD)]
    driver = subprocess.Popen([sys.executable, "-m", "tagmask", *command, "--address", cluster], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not list(output.glob("manifests/*.json")):
        assert driver.poll() is None, driver.stderr.read() if driver.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process, title in _workers():
        if "WholeWorker" in title:
            os.kill(process, signal.SIGKILL)
            break
    driver.send_signal(signal.SIGKILL)
    driver.wait()

    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"{IMAGES - 1} masks" in result.output
    assert "0005.png" in result.output
    check_is_plain(output, plain)
    with (output / "skipped.csv").open() as file:
        [header, row] = csv.reader(file)
    assert header == ["image", "error"]
    assert row[0] == "sub/0005"
    assert f"{photos}/sub/0005.png" in row[1]

    before = files_of(output)
    label_fleet(run, photos, output=output, fleet=Fleet(shard_size=SHARD), tagged=False)
    assert files_of(output) == before, "what is whole is left as it is, without any worker"
    with pytest.raises(TagmaskError, match="another shard_size, images"):
        label_fleet(run, photos / "sub", output=output, fleet=Fleet(shard_size=2 * SHARD), tagged=False)


def test_shards_from_s3_to_s3_by_way_of_a_gpu(cluster: str, bucket: str, run: Path, cooccur: Path) -> None:
    """The network alone holds the model; tags come from the shards, and run-length codes give the plain masks."""
    import io

    import pyarrow.parquet as pq

    records = api.open_data(cooccur, load(run).run.recipe.data, load(run).classes).records
    names = load(run).classes
    files: dict[str, bytes] = {}
    for record in records:
        files[f"{record.name}.png"] = record.image.read_bytes()
        files[f"{record.name}.json"] = json.dumps({"tags": [names[tag] for tag in record.tags]}).encode()
    store = Store(f"{bucket}/source")
    store.put("deep/one.tar", tar_of(dict(list(files.items())[:20])))
    store.put("two.tar", tar_of(dict(list(files.items())[20:])))
    output = f"{bucket}/masks"
    settings = ["--set", "inference.refine=none"]  # images of different tars go through the network together there
    command = ["label", str(run), store.place, "-o", output, "--engine", "ray", "--sink", "parquet"]
    result = CliRunner().invoke(app, [*command, *settings])
    assert result.exit_code == 0, result.output
    assert f"{len(records)} masks: {output}\n" in result.output
    wanted = api.label(run, cooccur, output=run.parent / "labelled", overrides=settings[1:])
    found: dict[str, np.ndarray] = {}
    written = Store(output)
    shards = [name for name in written.sizes() if name.endswith(".parquet")]
    assert shards == ["deep/one-00000.parquet", "two-00000.parquet"]
    for name in shards:
        with written.open(name) as stream:
            rows = pq.read_table(io.BytesIO(stream.read())).to_pylist()
        for row in rows:
            size = row["height"], row["width"]
            outlines = tuple(
                Outline(label, runs=code, size=size) for label, code in zip(row["labels"], row["counts"], strict=True)
            )
            found[row["image"]] = PolygonMask(name, outlines, size).load(*size)
    assert sorted(found) == sorted(record.name for record in records)
    for name, labels in found.items():
        np.testing.assert_array_equal(labels, np.asarray(Image.open(wanted.folder / f"{name}.png")))
    assert written.get(["skipped.csv"])["skipped.csv"] == b"image,error\n"


def _workers() -> list[tuple[int, str]]:
    """Return number and title of each process of this machine that Ray calls a worker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if title.startswith("ray::"):
                found.append((int(folder.name), title))
    return found
