"""The examples run, against stand-ins for the packages that are not ours."""

import importlib.util
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import tagmask
from tests.conftest import staged_recipe, tiny_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def logged(cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, Any]]]:
    """Have `tagmask.train` train shortly whatever it is asked; return what on_log is told."""
    told: list[tuple[int, dict[str, Any]]] = []
    train = tagmask.train

    def shortly(photos: str, *, output: str, on_log: Any) -> Path:
        def both(step: int, values: dict[str, Any]) -> None:
            told.append((step, dict(values)))
            on_log(step, values)

        return train(photos, recipe=tiny_recipe("cam"), output=output, on_log=both)

    monkeypatch.setattr(tagmask, "train", shortly)
    return told


def test_wandb_is_told_what_is_logged(
    logged: list[Any], cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    run = SimpleNamespace(define_metric=lambda *_, **__: None, log=sent.append)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: nullcontext(run)))
    load_example("log_to_wandb").main(str(cooccur), str(tmp_path / "run"))
    assert sent == [{"step": step, **values} for step, values in logged]
    assert [each["step"] for each in sent if "loss" in each] == [1, 2, 3, 4, 5, 6]


def test_mlflow_is_told_what_is_logged(
    logged: list[Any], cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, dict[str, Any]]] = []
    kept: list[str] = []
    stand_in = SimpleNamespace(
        start_run=nullcontext,
        log_params=lambda values: None,
        log_metrics=lambda values, step: sent.append((step, values)),
        log_artifact=lambda path: kept.append(Path(path).name),
    )
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    load_example("log_to_mlflow").main(str(cooccur), str(tmp_path / "run"))
    assert sent == logged
    assert kept == ["recipe.yaml"]


def test_on_log_is_told_the_lines_of_the_metrics(cooccur: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    run = tagmask.train(
        cooccur,
        recipe=tiny_recipe("cam"),
        output=tmp_path / "run",
        on_log=lambda step, v: told.append({"step": step, **v}),
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert told == lines
    assert {"loss", "lr", "images_per_second"} <= set(told[0])
    assert any("eval/decoder_miou" in each for each in told)


def test_on_log_names_the_stage(cooccur: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    tagmask.train(
        cooccur,
        recipe=staged_recipe("cam"),
        output=tmp_path / "run",
        on_log=lambda step, values: told.append((values["stage"], step)),
    )
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages[0] == "classifier"
    assert stages[-1] == "segmenter"


def test_without_tensorboard_a_training_writes_no_events(
    cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagmask.api.train import next_steps

    for there in (True, False):
        monkeypatch.setattr("tagmask.engine.loop.has_tensorboard", lambda there=there: there)
        monkeypatch.setattr(sys.modules["tagmask.api.train"], "has_tensorboard", lambda there=there: there)
        run = tagmask.train(cooccur, recipe=tiny_recipe("cam"), output=tmp_path / str(there))
        assert (run / "events").exists() == there
        assert any("curves: tensorboard" in line for line in next_steps(run)) == there


def test_slurm_trains_where_there_is_no_slurm(cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit, of the extra `dev`, is not installed")
    from tagmask.engine.run import open_run

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    example = load_example("slurm_submitit")
    monkeypatch.setitem(sys.modules, "slurm_submitit", example)  # the job unpickles what it is to do
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")]))
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(tiny_recipe("cam", "training.steps=3").dump())
    machine = ["--gpus", "0", "--processes", "2", "--logs", str(tmp_path / "logs")]
    job = example.submit(
        example.parse([*machine, "--", str(cooccur), "-r", str(recipe), "-o", str(run)]), cluster="local"
    )
    job.result()
    assert open_run(run).recipe.training.devices == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4, "three steps and a score, once each"


def test_slurm_machines_meet_at_the_first() -> None:
    pytest.importorskip("submitit", reason="submitit, of the extra `dev`, is not installed")
    task = load_example("slurm_submitit").Train(8, ["photos", "-o", "run"])
    job = SimpleNamespace(num_nodes=2, node=1, job_id="77", hostnames=["first", "second"])
    command = task.command(job)[3:]
    assert command[:5] == [
        "--nnodes=2", "--node-rank=1", "--rdzv-id=77", "--rdzv-backend=c10d", "--rdzv-endpoint=first:29500",
    ]  # fmt: skip
    assert command[5:] == ["--nproc-per-node=8", "-m", "tagmask", "train", "photos", "-o", "run"]
    assert task.checkpoint().function is task, "the same again, which resumes"
