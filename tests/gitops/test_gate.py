"""The gate's result for a candidate and a release, both made here by hand; no pipeline runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from breast_cancer import metrics
from defaults import complete
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError, digest
from gitops.gate import champion_challenger, gate
from gitops.integrations import dvc
from gitops.releases import record, release

ROWS = 300
CLASSES = ["benign", "malignant"]
SETTINGS: dict[str, Any] = {
    "data": {"path": "data/raw.csv", "target": "diagnosis", "task": "binary", "positive": "malignant"},
    "evaluate": {"bootstrap": 100},
    "gate": {
        "primary_metric": "roc_auc",
        "tolerance": 0.01,
        "thresholds": {"roc_auc": 0.7},
        "guardrail_metrics": {"brier": 0.02},
    },
    "package": {"model_name": "toy"},
}
SCHEMA = {
    "task": "binary",
    "target": {"name": "diagnosis", "classes": CLASSES, "dtype": "category"},
    "features": [{"name": "x", "dtype": "number"}],
}
PASSED = {"passed": True, "conditions": [], "not_run": []}

rng = np.random.default_rng(0)
ACTUAL = rng.integers(0, 2, ROWS)
NOISE = rng.normal(size=ROWS)


def outputs(skill: float) -> metrics.Array:
    """Return probabilities; the greater `skill`, the better they tell the classes apart."""
    positive = 1 / (1 + np.exp(-(skill * (2 * ACTUAL - 1) + NOISE)))
    return np.stack([1 - positive, positive], axis=1)


def predictions(path: Path, skill: float) -> Path:
    """Write a predictions.parquet whose rows come in another order than the split's."""
    table = pd.DataFrame({"row": range(ROWS), "split": "test"})
    for place, name in enumerate(CLASSES):
        table[f"p_{name}"] = outputs(skill)[:, place]
    table["prediction"] = np.array(CLASSES, dtype=object)[outputs(skill).argmax(axis=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    table.iloc[::-1].to_parquet(path)
    return path


class World:
    """A workspace with an evaluated candidate, and the release on origin."""

    def __init__(self) -> None:
        self.settings = json.loads(json.dumps(SETTINGS))
        self.release: Any = None
        self.objects: dict[str, Path] = {}  # what the DVC remote holds, by md5
        test = pd.DataFrame({"x": NOISE, "diagnosis": [CLASSES[place] for place in ACTUAL], artifacts.ROW: range(ROWS)})
        artifacts.TEST.parent.mkdir(parents=True)
        test.to_parquet(artifacts.TEST)
        artifacts.write_json(artifacts.SCHEMA, SCHEMA)
        for path in (artifacts.DATA_VERDICT, artifacts.MODEL_VERDICT):
            artifacts.write_json(path, PASSED)
        self.evaluate(skill=1.0)

    def scores(self, skill: float) -> dict[str, dict[str, float]]:
        values = metrics.score("binary", ACTUAL, outputs(skill), outputs(skill).argmax(axis=1))
        return {name: {"value": value, "low": value - 0.05, "high": value + 0.05} for name, value in values.items()}

    def evaluate(self, skill: float) -> None:
        artifacts.write_text(artifacts.MODEL, f"candidate of skill {skill}")
        predictions(artifacts.PREDICTIONS, skill)
        evaluated = {"test_md5": digest(artifacts.TEST, "md5"), "model_sha256": digest(artifacts.MODEL)}
        artifacts.write_json(artifacts.METRICS, evaluated | {"metrics": self.scores(skill)})

    def released(self, skill: float, **changes: Any) -> None:
        """Make production a release of that skill, on the same test split, with its predictions in the remote."""
        table = predictions(Path("old/predictions.parquet"), skill)
        self.objects[digest(table, "md5")] = table
        values = {
            "commit": "c" * 40,
            "model": {"name": "toy", "version": "0" * 12, "sha256": "0" * 64, "md5": "0" * 32},
            "package": {"path": "package/toy.mar", "md5": "1" * 32},
            "predictions": {"path": "evaluation/predictions.parquet", "md5": digest(table, "md5")},
            "test_md5": digest(artifacts.TEST, "md5"),
            "data": {"path": "data/raw.csv", "md5": "2" * 32},
            "params": complete(SETTINGS),
            "metrics": self.scores(skill),
            "gate": {"accepted": True, "mode": "absolute", "reason": "."},
            "mlflow_run_id": None,
            "image": "toy:1",
            "previous": None,
        }
        self.release = record.Deployed("e" * 40, record.Release.model_validate(values | changes))

    def fetch(self, md5: str) -> Path:
        if md5 not in self.objects:
            raise ProjectError(f"object {md5} is nowhere")
        return self.objects[md5]

    def gate(self) -> dict[str, Any]:
        artifacts.write_text(artifacts.PARAMS, yaml.safe_dump(complete(self.settings)))
        result: dict[str, Any] = gate.evaluate(params.load())
        assert json.loads(artifacts.GATE.read_text()) == result
        assert result["accepted"] == all(rule["passed"] for rule in result["rules"])
        assert result["reason"].startswith("Accepted" if result["accepted"] else "Refused")
        return result


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    world = World()
    monkeypatch.setattr(release, "production", lambda: world.release)
    monkeypatch.setattr(dvc, "fetch", world.fetch)
    monkeypatch.setattr(dvc, "stale", list)
    return world


def test_thresholds_alone_decide_on_the_first_model(world: World) -> None:
    result = world.gate()
    assert (result["accepted"], result["mode"], result["release"]) == (True, "absolute", None)
    assert (result["production"], result["difference"]) == (None, None)
    assert "no release to compare with" in result["reason"]


@pytest.mark.parametrize("limit", [{"roc_auc": 0.99}, {"roc_auc": 0.7, "brier": 0.001}])
def test_a_broken_threshold_refuses_with_and_without_a_release(world: World, limit: dict[str, float]) -> None:
    world.settings["gate"]["thresholds"] = limit
    assert not world.gate()["accepted"]
    world.released(skill=0.5)
    result = world.gate()
    assert not result["accepted"]
    assert "is needed" in result["reason"]


def test_a_better_model_is_accepted(world: World) -> None:
    world.released(skill=0.3)
    result = world.gate()
    assert (result["accepted"], result["mode"], result["release"]) == (True, "paired", "e" * 40)
    difference = result["difference"]
    assert difference["value"] == pytest.approx(result["candidate"] - result["production"])
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert "better" in result["reason"]
    assert "within noise" not in result["reason"]


def test_a_worse_model_is_refused(world: World) -> None:
    world.released(skill=2.0)
    result = world.gate()
    assert not result["accepted"]
    assert "worse" in result["reason"]
    assert result["difference"]["value"] < -0.01


def test_the_tolerance_limits_the_point_estimate(world: World) -> None:
    world.settings["gate"]["guardrail_metrics"] = {}
    world.released(skill=1.05)
    worse = -world.gate()["difference"]["value"]
    assert 0 < worse < 0.01
    for tolerance, accepted in ((worse, True), (worse * 0.99, False)):
        world.settings["gate"]["tolerance"] = tolerance
        assert world.gate()["accepted"] is accepted


def test_a_difference_within_noise_is_reported_as_such(world: World) -> None:
    world.released(skill=1.0)
    result = world.gate()
    assert result["accepted"]
    assert result["difference"] == {"value": 0, "low": 0, "high": 0}
    assert "within noise" in result["reason"]


def test_a_broken_guardrail_refuses_although_the_primary_metric_is_better(world: World) -> None:
    world.settings["gate"] |= {"tolerance": 1.0, "guardrail_metrics": {"brier": 0.02}}
    world.released(skill=3.0)
    result = world.gate()
    assert not result["accepted"]
    assert result["reason"].startswith("Refused: brier")
    assert [rule["rule"] for rule in result["rules"] if not rule["passed"]] == [
        "brier at most 0.02 worse than in production"
    ]


@pytest.mark.parametrize(
    "validation",
    [
        None,
        "{",
        "[]",
        json.dumps({"passed": False, "conditions": [{"check": "Drift", "status": "failed"}], "not_run": []}),
        json.dumps({"passed": False, "conditions": [], "not_run": [{"check": "Drift", "allowed": False}]}),
        json.dumps({"passed": True, "conditions": [{"check": "Drift", "status": "failed"}], "not_run": []}),
        json.dumps({"passed": True}),
    ],
)
@pytest.mark.parametrize("path", [artifacts.DATA_VERDICT, artifacts.MODEL_VERDICT])
def test_a_validation_that_did_not_pass_refuses(world: World, path: Path, validation: str | None) -> None:
    path.unlink()
    if validation is not None:
        path.write_text(validation)
    result = world.gate()
    assert not result["accepted"]
    assert f"{path.stem.removeprefix('validate_')} validation" in result["reason"]


def test_a_stale_stage_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc, "stale", lambda: ["validate_data"])
    result = world.gate()
    assert not result["accepted"]
    assert "validate_data out of date" in result["reason"]


@pytest.mark.parametrize("path", [artifacts.MODEL, artifacts.TEST])
def test_metrics_of_another_model_or_split_are_an_error_and_leave_no_result(world: World, path: Path) -> None:
    world.gate()
    path.write_text("another")
    with pytest.raises(ProjectError, match="was not made from this"):
        world.gate()
    assert not artifacts.GATE.exists()


def test_without_the_release_files_the_recorded_metrics_decide(world: World) -> None:
    world.released(skill=0.3)
    world.objects.clear()
    result = world.gate()
    assert (result["accepted"], result["mode"]) == (True, "recorded")
    assert "is nowhere" in result["reason"]
    difference = result["difference"]
    assert difference["low"] == pytest.approx(difference["value"] - 0.05 * 2**0.5)
    world.released(skill=2.0)
    world.objects.clear()
    assert not world.gate()["accepted"]


def test_predictions_that_lack_test_rows_are_not_compared(world: World) -> None:
    world.released(skill=0.3)
    [table] = world.objects.values()
    artifacts.read_parquet(table).head(10).to_parquet(table)
    assert world.gate()["mode"] == "recorded"


def test_a_release_for_another_target_is_not_compared(world: World) -> None:
    world.released(skill=3.0, params=SETTINGS | {"data": SETTINGS["data"] | {"target": "survival"}})
    result = world.gate()
    assert (result["accepted"], result["mode"]) == (True, "absolute")
    assert "data.target changed" in result["reason"]


def old_archive(world: World, schema: dict[str, Any]) -> None:
    """Give the release an archive whose model answers with the feature alone, classes in the schema's order."""
    import torch

    class Old(torch.nn.Module):
        def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
            first = torch.sigmoid(numbers[:, :1])
            return torch.cat([first, 1 - first], 1).float()

    example = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 0, dtype=torch.int64)
    rows = torch.export.Dim("rows")
    torch.export.save(torch.export.export(Old(), example, dynamic_shapes=({0: rows}, {0: rows})), "old.pt2")
    with zipfile.ZipFile("old.mar", "w") as archive:
        archive.write("old.pt2", artifacts.MODEL.name)
        archive.writestr(artifacts.SCHEMA.name, json.dumps(schema))
    md5 = digest(Path("old.mar"), "md5")
    model = {"name": "toy", "version": "0" * 12, "sha256": digest(Path("old.pt2")), "md5": "0" * 32}
    world.released(0.5, test_md5="another", package={"path": "package/toy.mar", "md5": md5}, model=model)
    world.objects[md5] = Path("old.mar")


def test_on_other_test_rows_the_old_model_is_run(world: World) -> None:
    old_archive(world, SCHEMA | {"target": SCHEMA["target"] | {"classes": CLASSES[::-1]}})  # type: ignore[operator]
    result = world.gate()
    assert result["mode"] == "paired"
    assert "the release's model was run" in result["reason"]
    positive = 1 / (1 + np.exp(-NOISE))
    predicted = (positive >= 0.5).astype(int)
    expected = metrics.score("binary", ACTUAL, np.stack([1 - positive, positive], axis=1), predicted)
    assert result["production"] == pytest.approx(expected["roc_auc"])


def test_an_old_model_whose_columns_were_removed_is_not_run(world: World) -> None:
    old_archive(world, SCHEMA | {"features": [{"name": "y", "dtype": "number"}]})
    result = world.gate()
    assert result["mode"] == "recorded"
    assert "columns that were removed or changed: y" in result["reason"]


def test_an_error_counts_as_worse_when_it_grows() -> None:
    actual = np.linspace(0, 1, 50)
    close, far = actual + 0.01, actual + np.where(np.arange(50) % 2, 0.3, 0.1)
    better = champion_challenger.paired("regression", actual, (close, close), (far, far), resamples=200, seed=1)
    assert better["rmse"].low > 0
    assert better["r2"].low > 0
    worse = champion_challenger.paired("regression", actual, (far, far), (close, close), resamples=200, seed=1)
    assert worse["rmse"].value == -better["rmse"].value


def test_pairing_narrows_the_interval() -> None:
    """Rows that are hard for both models cancel out: the interval is narrower than those of the metrics together."""
    shared, own = rng.normal(size=ROWS), 0.05 * rng.normal(size=ROWS)
    one, other = (shared, shared), (shared + own, shared + own)
    difference = champion_challenger.paired("regression", np.zeros(ROWS), one, other, resamples=200, seed=1)["rmse"]
    alone = metrics.bootstrap("regression", np.zeros(ROWS), *one, 200, 1)["rmse"]
    assert difference.high - difference.low < 0.3 * (alone["high"] - alone["low"])


def test_the_exit_status_is_the_result(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.gate()
    assert gate.main() == 0
    artifacts.DATA_VERDICT.unlink()
    assert gate.main() == 1
    assert "Refused: data validation has no result" in capsys.readouterr().out
