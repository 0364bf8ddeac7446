from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagmask.errors import TagmaskError
from tagmask.evaluation.report.costs import (
    TRAINING,
    StageCost,
    disk_use,
    read_logs,
    read_metrics,
    recorded_scores,
    series,
    stage_costs,
)
from tests.evaluation.conftest import METRICS

SCORES = {
    "protocol": "seco",
    "conditions": {"split": "test", "source": "cam", "tags_given": True, "scales": [1.0], "flips": True},
    "images": 7,
    "miou": 0.5,
    "mean_confusion_ratio": None,
}


def test_series_begin_with_evaluations_and_loss(untrained: Path) -> None:
    found = series(read_metrics(untrained))
    assert [each.name for each in found] == ["eval/decoder_miou", "loss", "cls", "lr", "images_per_second"]
    assert (found[0].steps, found[0].values) == ((4,), (12.5,))
    assert (found[1].steps, found[1].values) == ((2, 4), (0.7, 0.8))


def test_time_of_one_stage_is_images_over_speed(untrained: Path) -> None:
    logs = read_logs(untrained)
    assert logs == {TRAINING: METRICS}
    assert stage_costs(untrained, logs, batch=4) == [StageCost(TRAINING, 2 * 4 / 4 + 2 * 4 / 8, None, 4, True)]
    assert stage_costs(untrained, {}, batch=4) == []


def test_stages_are_as_their_account_says(tmp_path: Path) -> None:
    accounts = {
        "classifier": {"seconds": 12.5, "bytes": 300, "done": True},
        "refine": {"seconds": 1.0, "bytes": 7, "done": False},
    }
    (tmp_path / "stages.json").write_text(json.dumps(accounts))
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "metrics.jsonl").write_text('{"step": 9, "loss": 1.0}\n')
    logs = read_logs(tmp_path)
    assert logs == {"classifier": [{"step": 9, "loss": 1.0}]}
    assert stage_costs(tmp_path, logs, batch=4) == [
        StageCost("classifier", 12.5, 300, 9, True),
        StageCost("refine", 1.0, 7, None, False),
    ]


def test_disk_is_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a").write_bytes(b"123")
    (tmp_path / "events" / "b").write_bytes(b"45")
    (tmp_path / "recipe.yaml").write_bytes(b"x" * 9)
    assert disk_use(tmp_path) == [("recipe.yaml", 1, 9), ("events", 2, 5)]


def test_no_log_is_no_error_and_a_damaged_one_names_its_line(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    with pytest.raises(TagmaskError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path)


def test_recorded_scores_one_or_several(tmp_path: Path) -> None:
    assert recorded_scores(tmp_path) == []
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(SCORES))
    (one,) = recorded_scores(tmp_path)
    assert (one.name, one.miou, one.ratio, one.images, one.conditions.tags_given) == ("cam", 0.5, None, 7, True)
    path.write_text(json.dumps({"decoder": SCORES, "cam": SCORES}))
    assert [each.name for each in recorded_scores(tmp_path)] == ["decoder", "cam"]
    former = {**SCORES, "conditions": {**SCORES["conditions"], "threshold": 0.4}}
    path.write_text(json.dumps(former))
    assert recorded_scores(tmp_path)[0].conditions.background_score == 0.4, "as version 0.1 wrote it"
    path.write_text("[1]")
    with pytest.raises(TagmaskError, match=r"scores\.json: no scores"):
        recorded_scores(tmp_path)
