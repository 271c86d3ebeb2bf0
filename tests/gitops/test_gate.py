"""The gate's result for a candidate and a release, both made by hand (gating.py); no pipeline runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gating
import numpy as np
import pytest
from breast_cancer import metrics
from gating import ACTUAL, CLASSES, NOISE, ROWS, SCHEMA, SETTINGS, World
from gitops import owner
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest
from gitops.gate import champion_challenger, gate
from gitops.gate.opponents import Predictions
from gitops.integrations import dvc
from gitops.tabular import in_parts

RNG = np.random.default_rng(1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return gating.prepared(tmp_path, monkeypatch)


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
    assert (result["accepted"], result["mode"], result["release"]) == (True, "paired", "1" * 40)
    difference = result["difference"]
    assert difference["value"] == pytest.approx(result["candidate"] - result["production"])
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert "better" in result["reason"]
    assert "within the noise" not in result["reason"]


def test_a_worse_model_is_refused(world: World) -> None:
    world.released(skill=2.0)
    result = world.gate()
    assert not result["accepted"]
    assert "worse" in result["reason"]
    assert result["difference"]["value"] < -0.01


def test_a_model_that_is_proved_worse_is_refused_beyond_the_tolerance(world: World) -> None:
    world.settings["gate"]["guardrail_metrics"] = {}
    world.released(skill=1.05)
    difference = world.gate()["difference"]
    assert -0.01 < difference["value"] < difference["upper"] < 0
    for tolerance, accepted in ((-difference["value"], True), (-difference["value"] * 0.99, False)):
        world.settings["gate"]["tolerance"] = tolerance
        result = world.gate()
        assert result["accepted"] is accepted
    (rule,) = [rule for rule in result["rules"] if not rule["passed"]]
    assert (rule["value"], rule["limit"]) == (difference["value"], -tolerance)
    assert (rule["bound"], rule["release"]) == (difference["upper"], "toy 000000000001, release 111111111111")
    assert "proved by the 95 % bound -0.00" in result["reason"]


def test_a_difference_within_noise_is_reported_as_such(world: World) -> None:
    world.released(skill=1.0)
    result = world.gate()
    assert result["accepted"]
    assert set(result["difference"].values()) == {0}
    assert "equal (95 % interval +0.0000 to +0.0000, within the noise of these test rows)" in result["reason"]


def test_a_broken_guardrail_refuses_although_the_primary_metric_is_better(world: World) -> None:
    world.settings["gate"] |= {"tolerance": 1.0, "guardrail_metrics": {"brier": 0.02}}
    world.released(skill=3.0)
    result = world.gate()
    assert not result["accepted"]
    assert result["reason"].startswith("Refused: brier")
    assert [rule["rule"] for rule in result["rules"] if not rule["passed"]] == [
        "brier at most 0.02 worse than production, or not proved worse"
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


def sliced(world: World, column: dict[str, tuple[float, float, float] | None], decision: str = "proved_worse") -> Any:
    """Return the gate's result where brier may be 0.2 at most in each slice; `column`: value and interval, by slice."""
    world.settings["gate"] |= {"slices": {"brier": 0.2}, "decision": decision}
    world.settings["data"]["slices"] = ["sex"]
    cells = {
        value: {"rows": 50, "metrics": {"brier": dict(zip(("value", "low", "high"), score, strict=True))}}
        if score
        else {"rows": 5, "metrics": None}
        for value, score in column.items()
    }
    artifacts.write_json(artifacts.METRICS, artifacts.read_json(artifacts.METRICS, "") | {"slices": {"sex": cells}})
    return world.gate()


@pytest.mark.parametrize(
    ("decision", "interval", "accepted"),
    [
        ("proved_worse", (0.25, 0.21, 0.3), False),
        ("proved_worse", (0.25, 0.19, 0.3), True),
        ("not_worse", (0.15, 0.1, 0.19), True),
        ("not_worse", (0.15, 0.1, 0.21), False),
    ],
)
def test_a_limit_holds_in_each_slice(
    world: World, decision: str, interval: tuple[float, float, float], accepted: bool
) -> None:
    result = sliced(world, {"f": interval, "m": (0.1, 0.05, 0.15), "other": None}, decision)
    assert result["accepted"] is accepted
    (rule,) = [rule for rule in result["rules"] if "each value of sex" in rule["rule"]]
    assert rule["rule"] == "brier at most 0.2 for each value of sex (2 of 3 judged)"
    assert (rule["value"], rule["passed"]) == (interval[0], accepted)
    assert rule["bound"] == interval[1 if decision == "proved_worse" else 2]
    if not accepted:
        assert f"brier is {interval[0]} where sex is f (95 % interval {interval[1]} to" in result["reason"]


def test_a_slice_whose_metric_is_better_when_higher_is_judged_from_below(world: World) -> None:
    world.settings["gate"]["slices"] = {"roc_auc": 0.8}
    world.settings["data"]["slices"] = ["sex"]
    for high, accepted in ((0.79, False), (0.81, True)):
        cell = {"rows": 50, "metrics": {"roc_auc": {"value": 0.75, "low": 0.7, "high": high}}}
        slices = {"slices": {"sex": {"f": cell}}}
        artifacts.write_json(artifacts.METRICS, artifacts.read_json(artifacts.METRICS, "") | slices)
        assert world.gate()["accepted"] is accepted


@pytest.mark.parametrize("column", [{"f": None, "m": None}, {}])
def test_a_column_of_which_no_slice_can_be_judged_refuses(world: World, column: dict[str, None]) -> None:
    result = sliced(world, column)
    assert not result["accepted"]
    assert f"brier was not judged by sex: none of the {len(column)} values of sex has enough" in result["reason"]


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


def test_the_old_model_is_run_on_a_part_of_the_rows_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old_archive(world, SCHEMA)
    whole = world.gate()
    predict, seen = owner.evaluate().predict, []
    monkeypatch.setattr(in_parts, "PART", 8 * 100 * len(artifacts.read_parquet(artifacts.TEST).columns))
    monkeypatch.setattr(
        owner.evaluate(),
        "predict",
        lambda program, frame, schema: seen.append(len(frame)) or predict(program, frame, schema),
    )
    assert world.gate()["production"] == whole["production"]
    assert max(seen) == 100 and sum(seen) == ROWS


def test_an_old_model_decides_by_its_own_threshold(world: World) -> None:
    """Its positive class is the other one, and its answer that only from 0.9 on."""
    target = SCHEMA["target"] | {"classes": CLASSES[::-1], "threshold": 0.9}  # type: ignore[operator]
    old_archive(world, SCHEMA | {"target": target})
    world.settings["gate"] |= {"primary_metric": "f1", "thresholds": {"f1": 0.0}}
    positive = 1 / (1 + np.exp(-NOISE))
    predicted = (1 - positive < 0.9).astype(int)
    expected = metrics.score("binary", ACTUAL, np.stack([1 - positive, positive], axis=1), predicted)
    assert world.gate()["production"] == pytest.approx(expected["f1"])


def test_an_old_model_whose_columns_were_removed_is_not_run(world: World) -> None:
    old_archive(world, SCHEMA | {"features": [{"name": "y", "dtype": "number"}]})
    result = world.gate()
    assert result["mode"] == "recorded"
    assert "columns that were removed or changed: y" in result["reason"]


def paired(actual: metrics.Array, new: metrics.Array, old: metrics.Array, groups: metrics.Array | None = None) -> Any:
    """Return the differences in the metrics of regression."""
    candidate, release = Predictions(new, new), Predictions(old, old)
    groups = np.arange(len(actual)) if groups is None else groups
    known, bootstrap = metrics.METRICS["regression"], SimpleNamespace(bootstrap=400, seed=1)
    (found,) = champion_challenger.paired(known, actual, groups, candidate, [release], [{*known}], bootstrap)
    return found


def test_an_error_counts_as_worse_when_it_grows() -> None:
    actual = np.linspace(0, 1, 50)
    close, far = actual + 0.01, actual + np.where(np.arange(50) % 2, 0.3, 0.1)
    better = paired(actual, close, far)
    assert better["rmse"].low > 0
    assert better["r2"].low > 0
    assert paired(actual, far, close)["rmse"].value == -better["rmse"].value


def test_pairing_narrows_the_interval() -> None:
    """Rows that are hard for both models cancel out: the interval is far narrower than that of one error's mean."""
    shared, own = RNG.normal(size=ROWS), 0.05 * RNG.normal(size=ROWS)
    difference = paired(np.zeros(ROWS), shared, shared + own)["mae"]
    assert difference.high - difference.low < 0.3 * 2 * 1.96 * np.abs(shared).std() / np.sqrt(ROWS)


def test_rows_of_a_group_count_once() -> None:
    """Each group's rows are alike: 30 groups of ten rows say as much as 30 rows, so the interval is as wide."""
    one, other = RNG.normal(size=30), RNG.normal(size=30)
    groups = np.repeat(np.arange(30), 10)
    grouped = paired(np.zeros(300), one[groups], other[groups], groups)["mae"]
    single, careless = paired(np.zeros(30), one, other)["mae"], paired(np.zeros(300), one[groups], other[groups])["mae"]
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)
    assert grouped.high - grouped.low > 2.5 * (careless.high - careless.low)


def test_a_single_group_of_rows_is_an_error() -> None:
    with pytest.raises(ProjectError, match=r"the test rows are a single group.*data\.id"):
        paired(np.zeros(9), np.ones(9), np.zeros(9), np.zeros(9, dtype=int))


def test_the_exit_status_is_the_result(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.gate()
    assert gate.main() == 0
    artifacts.DATA_VERDICT.unlink()
    assert gate.main() == 1
    assert "Refused: data validation has no result" in capsys.readouterr().out
