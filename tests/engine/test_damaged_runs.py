"""Files of a run that were damaged: each is one error that names the file, never a traceback or a silent wrong mask."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tagmask
from tagmask.api import open_data
from tagmask.data.cam_files import read_cams
from tagmask.engine.checkpoint import (
    MODEL_FILE,
    STATE_FILE,
    checksum,
    load_model,
    load_state,
    read_training_state,
    save_model,
    save_state,
)
from tagmask.engine.clusters import CLUSTERS, read_clusters
from tagmask.engine.run import open_run
from tagmask.engine.stage import read_costs
from tagmask.errors import TagmaskError
from tagmask.evaluation.report.costs import read_metrics, recorded_scores
from tagmask.models.weight_files import read_state
from tagmask.recipes.load import DataConfig
from tests.conftest import staged_recipe, tiny_recipe

DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def trained(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("damaged") / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", b"caf\xe9\n", r"classes\.txt: cannot be read \(not UTF-8\)"),
        ("run.json", DEEP, r"run\.json: damaged \(is no JSON \(nested too deeply\)\)"),
        ("run.json", b"[1]", r"run\.json: damaged; expected a JSON object"),
        ("run.json", b"\xff", r"run\.json: damaged"),
        ("recipe.yaml", b"\xff", r"recipe\.yaml: not a recipe"),
        ("recipe.yaml", DEEP, r"recipe\.yaml: not a recipe"),
        ("model.safetensors", b"", r"model\.safetensors: damaged or no model"),
        ("model.safetensors", b"\xff" * 100, r"model\.safetensors: damaged or no model"),
    ],
)
def test_bad_input_a_run_does_not_open(name: str, content: bytes, message: str, run: Path) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(TagmaskError, match=message):
        tagmask.load(run)


@pytest.mark.parametrize(
    "line",
    [b"\xff\n", DEEP + b"\n", b'{"step": Infinity}\n', b"[1]\n", b'{"loss": 1}\n', b'{"step": 1, "loss": "high"}\n'],
)
def test_bad_input_a_log(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 0.5}\n' + line)
    with pytest.raises(TagmaskError, match=r"metrics\.jsonl, line 2: no JSON object of numbers with a step"):
        read_metrics(tmp_path)


def test_a_training_resumes_beside_a_damaged_log(run: Path, cooccur: Path) -> None:
    (run / MODEL_FILE).unlink()
    log = run / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b"\xff\n" + DEEP + b"\n{}\n")
    whole = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    tagmask.train(cooccur, recipe=whole, output=run)
    assert [line["step"] for line in read_metrics(run)][:2] == [1, 2]


@pytest.mark.parametrize("content", [b"\xff", DEEP, b"[1]", b'{"cams": 1}', b'{"cams": {"seconds": Infinity}}'])
def test_bad_input_costs_and_scores(content: bytes, tmp_path: Path) -> None:
    for name, read in (("stages.json", read_costs), ("scores.json", recorded_scores)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TagmaskError, match=name.replace(".", r"\.")):
            read(tmp_path)


@pytest.mark.parametrize("cut", [0, 40, -30])
def test_bad_input_clusters_cut_short(cut: int, cooccur: Path, tmp_path: Path) -> None:
    dataset = open_data(cooccur, DataConfig())
    place = tmp_path / "clusters1"
    place.mkdir()
    np.savez(place / CLUSTERS, assignment=np.zeros((24, 3), dtype=np.int64))
    (place / CLUSTERS).write_bytes((place / CLUSTERS).read_bytes()[:cut])
    with pytest.raises(TagmaskError, match=r"clusters\.npz: damaged .*; cluster anew with --from clusters1"):
        read_clusters(place, dataset)


def test_bad_input_the_gathered_maps_of_rca(cooccur: Path, tmp_path: Path) -> None:
    recipe = staged_recipe("rca")
    run = tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    state = run / "classifier" / STATE_FILE
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TagmaskError, match=rf"{STATE_FILE}: cannot resume from it"):
        tagmask.train(cooccur, recipe=recipe, output=run, from_stage="cams")
    state.unlink()
    with pytest.raises(TagmaskError, match=rf"{STATE_FILE}: is missing.*--from classifier"):
        tagmask.train(cooccur, recipe=recipe, output=run)


def test_bad_input_a_state_that_is_none(tmp_path: Path) -> None:
    network = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    save_state(tmp_path, network, optimizer, 3)
    path = tmp_path / STATE_FILE
    whole = torch.load(path, weights_only=True)
    for lacking in ("step", "method", "optimizer", "random"):
        torch.save({key: value for key, value in whole.items() if key != lacking}, path)
        with pytest.raises(TagmaskError, match=r"cannot resume from it \(no state of a training\)"):
            load_state(tmp_path, network, optimizer)
    torch.save({**whole, "step": "three"}, path)
    with pytest.raises(TagmaskError, match="cannot resume from it"):
        load_state(tmp_path, network, optimizer)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    network = nn.Linear(64, 64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    save_state(tmp_path, network, optimizer, 3)
    save_model(tmp_path, network)
    marks = network.weight.detach().numpy().tobytes()[1000:1040]  # in the midst of the weights
    for name, read in (
        (STATE_FILE, lambda: read_training_state(tmp_path / STATE_FILE)),
        (MODEL_FILE, lambda: load_model(tmp_path, nn.Linear(64, 64))),
    ):
        read()
        whole = (tmp_path / name).read_bytes()
        place = whole.index(marks)
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(TagmaskError, match=rf"{name}: .*checksum"):
            read()


def test_a_model_of_numbers_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    network = nn.Linear(3, 3)
    for value in (float("nan"), float("inf")):
        with torch.no_grad():
            network.bias[1] = value
        save_model(tmp_path, network)
        with pytest.raises(TagmaskError, match=r"model\.safetensors: 'bias' holds numbers that are not finite"):
            load_model(tmp_path, nn.Linear(3, 3))


def test_a_model_of_version_0_1_has_no_checksum_and_opens(run: Path) -> None:
    # Copies: older safetensors reads from the file itself as long as it is open, and here it is written over.
    tensors = {name: value.clone() for name, value in load_file(run / MODEL_FILE).items()}
    save_file(tensors, run / MODEL_FILE)
    network = tagmask.load(run).method.network
    assert checksum({name: value.cpu() for name, value in network.state_dict().items()}) == checksum(tensors)
    assert open_run(run).classes


def test_bad_input_weights_with_numbers_for_names(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(2), "a": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(TagmaskError, match="expected a mapping from names to tensors"):
        read_state(tmp_path / "weights.pth")


@pytest.mark.parametrize(("shape", "ids"), [((1, 0, 4), [1]), ((1, 4, 0), [1]), ((1, 4, 4), [0]), ((1, 4, 4), [-3])])
def test_bad_input_cams(shape: tuple[int, ...], ids: list[int], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", cams=np.zeros(shape, dtype=np.float16), ids=np.asarray(ids))
    with pytest.raises(TagmaskError, match=r"a\.npz: (CAMs of size|label ids).*rite it again"):
        read_cams(tmp_path / "a.npz")
