"""Two processes do what one does, in every method and stage; and they end together when one of them fails."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask.api import open_data
from tagmask.data.cam_files import read_cams
from tagmask.data.synthetic import make_cooccur
from tagmask.engine.processes import LINGER, run_on_processes
from tagmask.engine.run import open_run
from tagmask.engine.stage import read_costs
from tagmask.engine.stage_rules import check_stages
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig, Recipe, TrainingConfig
from tests.conftest import staged_recipe, tiny_recipe
from tests.engine import failing
from tests.engine.failing import killed_recipe
from tests.engine.trainings import STEPS, train, trainings

IMAGES = 13
RESUMED = ("seco", "sccam-clusters", "rca")
STAGED = ("sccam-run", "rca-run", "affinity-run", "single-run")


def recipe_of_stages(name: str, data: Path, single: Path) -> Recipe:
    if name == "affinity-run":
        steps = {"steps": 4, "batch": 2, "workers": 0, "precision": "32-true"}
        refine = {"name": "affinity", "affinity": {"views": {"crop": 64}, "training": steps}}
        recipe = staged_recipe("cam", refine=refine)
    else:
        recipe = staged_recipe("cam" if name == "single-run" else name.removesuffix("-run"))
    section = recipe.data.model_copy(update={"path": single if name == "single-run" else data})
    training = recipe.training.model_copy(update={"precision": "32-true"})
    return recipe.model_copy(update={"data": section, "training": training})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each training by one process as NAME-1 and by two as NAME-2, with the states they end in; and runs of stages.

    The last training of the two, `killed`, ends by the death of the first of them; `torchrun.txt` is what was said.
    """
    folder = tmp_path_factory.mktemp("processes")
    alone = make_cooccur(folder / "alone", images=1, size=48, classes=3, seed=5)
    data = make_cooccur(folder / "set", images=IMAGES, size=48, classes=3, seed=5)
    dataset = open_data(data, DataConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagmask.engine.loop.has_tensorboard", lambda: False)  # its import takes seconds
        for name, training in trainings().items():
            torch.save(train(training, dataset, folder / f"{name}-1", 1).state_dict(), folder / f"{name}-1.pt")
        for name in RESUMED:
            train(trainings()[name], dataset, folder / f"{name}-1-2", 1, stop=STEPS // 2)
        for name in STAGED:
            recipe = recipe_of_stages(name, data, alone)
            (folder / f"{name}.yaml").write_text(recipe.dump())
            tagmask.train(recipe=recipe, output=folder / f"{name}-1")
    script = Path(__file__).with_name("distributed_run.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = [str(script.parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(
        [*torchrun, str(script), str(data), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    (folder / "torchrun.txt").write_text(done.stderr)
    assert all((folder / f"done-{rank}").exists() for rank in (0, 1)), done.stderr[-5000:]
    assert done.returncode == 1, "the first process is killed in the end"
    assert "find_unused_parameters" not in done.stderr, "torch complains of how it is called"
    return folder


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def losses(folder: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    return torch.tensor([line["loss"] for line in lines if "loss" in line])


def assert_near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", trainings())
def test_two_processes_follow_one(name: str, runs: Path) -> None:
    one, first, second = (state(runs / f"{name}-{which}.pt") for which in ("1", "2-0", "2-1"))
    differing = [key for key in first if not torch.equal(first[key], second[key])]
    assert differing == [], "queue, prototypes, memory, teacher and statistics are equal in all processes"
    assert_near(first, one)
    followed = losses(runs / f"{name}-1")
    assert len(followed.unique()) > 1
    torch.testing.assert_close(losses(runs / f"{name}-2"), followed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RESUMED)
def test_a_training_goes_on_with_another_number_of_processes(name: str, runs: Path) -> None:
    whole = losses(runs / f"{name}-1")
    torch.testing.assert_close(losses(runs / f"{name}-1-2"), whole, rtol=1e-5, atol=1e-5)
    method = train(trainings()[name], open_data(runs / "set", DataConfig()), runs / f"{name}-2-1", 1)
    torch.testing.assert_close(losses(runs / f"{name}-2-1"), whole, rtol=1e-5, atol=1e-5)
    assert_near(dict(method.state_dict()), state(runs / f"{name}-1.pt"))


@pytest.mark.parametrize("name", STAGED)
def test_stages_are_done_by_two_as_by_one(name: str, runs: Path) -> None:
    one, two = runs / f"{name}-1", runs / f"{name}-2"
    assert read_costs(two).keys() == read_costs(one).keys()
    assert open_run(two).recipe.training.devices == 2, "nobody but torchrun said so"
    assert not list(two.rglob(".tagmask*"))
    made, again = (
        {path.relative_to(run) for path in run.rglob("*") if "events" not in path.parts} for run in (one, two)
    )
    assert again == made
    for path in sorted(made):
        if path.suffix == ".png":
            masks = [np.asarray(Image.open(run / path)) for run in (one, two)]
            assert (masks[0] != masks[1]).mean() <= 0.01, path
        elif path.suffix == ".npz" and path.parent.name == "cams":
            for near, far in zip(read_cams(one / path), read_cams(two / path), strict=True):
                torch.testing.assert_close(near.float(), far.float(), rtol=0, atol=1e-3)
        elif path.suffix == ".npz":
            clusters = [np.load(run / path)["assignment"] for run in (one, two)]
            np.testing.assert_array_equal(*clusters)


def test_each_image_is_written_by_one_process(runs: Path) -> None:
    written = [(runs / f"written-{rank}").read_text().splitlines() for rank in (0, 1)]
    for name in STAGED:
        images = len(list((runs / f"{name}-1" / "cams").glob("*.npz")))
        assert images == 1 if name == "single-run" else images % 2, "one process has more to do than the other"
        shares = [[line for line in lines if line.startswith(f"{name}-2/")] for lines in written]
        stages = {line.split("/")[1] for line in shares[0]}
        assert stages == {"cams", "refine"} | ({"affinity-labels"} if name == "affinity-run" else set())
        together = shares[0] + shares[1]
        assert len(together) == len(set(together)) == images * len(stages)
        assert len(shares[0]) - len(shares[1]) == (images % 2) * len(stages)


def test_the_error_of_the_process_that_failed_first_is_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, dict[str, int]]] = []
    with caplog.at_level(logging.INFO, "tagmask"), pytest.raises(TagmaskError, match=r"^the second has had enough$"):
        run_on_processes(2, failing.speak_and_raise, (), lambda step, values: told.append((step, values)))
    assert (3, {"rank": 0}) in told
    spoken = [record.getMessage() for record in caplog.records if record.name == "tagmask.somewhere"]
    assert spoken == ["process 0 speaks"]


def test_a_killed_process_ends_the_others_and_the_run_goes_on(cooccur: Path, tmp_path: Path) -> None:
    recipe, run, told = killed_recipe("training.devices=2"), tmp_path / "run", []
    with pytest.raises(TagmaskError, match=r"^process 2 of 2 was killed \(SIGKILL\) .* memory ran out"):
        run_on_processes(
            2, failing.train_and_die, (cooccur, recipe, run, 1), lambda step, _: told.append((step, time.monotonic()))
        )
    end = time.monotonic()
    assert [step for step, _ in told] == list(range(1, failing.LAST + 1))
    assert end - told[-1][1] < LINGER + 10, "the first process was ended, and did not wait for the second"
    tagmask.train(cooccur, recipe=recipe.model_copy(update={"training": one_device(recipe)}), output=run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_process_killed_under_torchrun_ends_the_other_with_one_line(runs: Path) -> None:
    # torchrun ends the second one at once; where the machine is so busy that it is late, the second one ends by itself.
    said = (runs / "torchrun.txt").read_text().splitlines()
    (ours,) = [line for line in said if line.endswith("The same command resumes the training")]
    assert re.search(r"process 2 of 2: (ended by torchrun|another process of this training has ended)", ours)
    last_step = (runs / "killed/training_state.pt").stat().st_mtime
    assert (runs / "torchrun.txt").stat().st_mtime - last_step < 60, "it did not wait for the first as for a slow disk"
    tagmask.train(runs / "set", recipe=killed_recipe(), output=runs / "killed")
    lines = [json.loads(line) for line in (runs / "killed/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]


def one_device(recipe: Recipe) -> TrainingConfig:
    return recipe.training.model_copy(update={"devices": 1})


def test_devices_of_a_recipe_are_started_here(cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(sys.modules["tagmask.api.train"], "run_on_processes", lambda *given: started.append(given))
    recipe = tiny_recipe("cam", "training.devices=2")
    assert tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run") == tmp_path / "run"
    ((count, work, arguments, on_log),) = started
    assert (count, work.__name__, on_log) == (2, "_train", None)
    assert pickle.loads(pickle.dumps(arguments)) == (cooccur, recipe, tmp_path / "run", None)


@pytest.mark.parametrize("stage", ["segmenter", "refine"])
def test_bad_input_batches_that_cannot_be_shared_out(stage: str, cooccur: Path, tmp_path: Path) -> None:
    training = {"steps": 4, "batch": 3, "workers": 0}
    own = {"segmenter": {"training": training}, "refine": {"name": "affinity", "affinity": {"training": training}}}
    recipe = staged_recipe("cam", **{stage: own[stage]})
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"devices": 2})})
    with pytest.raises(TagmaskError, match=rf"{stage}.*training\.batch 3 is no multiple .* 2: .* set it to 4"):
        check_stages(recipe)


def test_bad_input_a_stage_on_devices_of_its_own() -> None:
    recipe = staged_recipe("cam", segmenter={"training": {"devices": 4}})
    with pytest.raises(TagmaskError, match=r"segmenter\.training\.devices 4: all stages run on the 1 of training"):
        check_stages(recipe)


def test_bad_input_more_devices_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TagmaskError, match=r"training\.devices 2: this machine has 1 GPUs"):
        run_on_processes(2, print, ())
