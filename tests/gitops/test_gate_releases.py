"""The gate holds a candidate to all releases so far, by the decision that params.yaml chooses."""

from __future__ import annotations

from pathlib import Path

import gating
import numpy as np
import pytest
from gating import SETTINGS, World
from gitops.core.artifacts import ProjectError
from gitops.gate import opponents
from gitops.releases.record import GateResult
from gitops.statistics import differences


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = gating.prepared(tmp_path, monkeypatch)
    made.settings["gate"] |= {"guardrail_metrics": {}, "thresholds": {"roc_auc": 0.5}}
    return made


def skill_of(world: World, auc: float) -> float:
    """Return the skill whose ROC AUC on the test rows is the largest that is no larger than `auc`."""
    low, high = 0.0, 5.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if world.scores(middle)["roc_auc"]["value"] <= auc else (low, middle)
    return low


def test_ten_releases_that_are_each_worse_by_the_tolerance_are_stopped(world: World) -> None:
    """Each is within the tolerance of the one before it, but not of the first."""
    tolerance = world.settings["gate"]["tolerance"]
    start = world.scores(1.0)["roc_auc"]["value"]
    world.released(skill=1.0)
    accepted = 0
    for step in range(1, 11):
        wanted = world.scores(skill_of(world, start - step * tolerance))["roc_auc"]["value"]
        world.evaluate(skill_of(world, wanted))
        result = world.gate()
        if not result["accepted"]:
            break
        accepted += 1
        world.follow(skill_of(world, wanted))
    assert accepted <= 2
    assert "release 111111111111" in result["reason"]
    assert result["difference"]["value"] == pytest.approx(-tolerance, abs=tolerance / 2)
    assert result["best"] == {"commit": "1" * 40, "model_version": f"{1:012}", "value": pytest.approx(start)}


def test_the_best_of_all_releases_is_named_and_the_candidate_is_not_among_them(world: World) -> None:
    for skill in (0.8, 0.95, 0.9):
        world.follow(skill)
    result = world.gate()
    assert result["accepted"]
    assert [one["release"][0] for one in result["releases"]] == ["3", "2", "1"]
    assert [one["deployed"] for one in result["releases"]] == [True, False, False]
    assert result["best"]["commit"] == "2" * 40
    assert GateResult.model_validate(result).best.model_version == f"{2:012}"  # type: ignore[union-attr]
    assert "than any of 3 releases, the best of which is toy 000000000002, release 222222222222" in result["reason"]
    for one in result["releases"]:
        assert one["difference"]["value"] == pytest.approx(result["candidate"] - one["value"])
    assert result["differences"].keys() == {"roc_auc", "pr_auc", "f1", "accuracy", "brier"}


def test_a_model_that_was_released_twice_is_compared_once_and_fetched_once(world: World) -> None:
    world.follow(0.9)
    world.follow(0.8)
    again = world.releases[0].record.model
    world.follow(0.9, model=again.model_dump())
    result = world.gate()
    assert [one["release"][0] for one in result["releases"]] == ["3", "2"]
    assert len(world.fetched) == len(set(world.fetched)) == 2


def test_the_newest_releases_and_the_best_of_its_time_are_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opponents, "NEWEST", 2)
    best = world.follow(0.95)
    for skill in (0.7, 0.8):
        world.follow(skill)
    gate = {"accepted": True, "mode": "paired", "reason": "."}
    world.follow(0.75, gate=gate | {"best": {"commit": best, "model_version": f"{1:012}"}})
    result = world.gate()
    assert [one["release"][0] for one in result["releases"]] == ["4", "3", "1"]
    assert result["best"]["commit"] == best

    world.releases = world.releases[1:]  # taken back since
    assert [one["release"][0] for one in world.gate()["releases"]] == ["4", "3"]


def test_a_release_that_cannot_be_had_is_left_out_with_the_reason(world: World) -> None:
    world.follow(0.9)
    world.follow(0.95, params=SETTINGS | {"data": SETTINGS["data"] | {"target": "survival"}})
    world.follow(0.8)
    del world.objects[world.releases[0].record.predictions.md5]
    result = world.gate()
    assert (result["accepted"], result["mode"]) == (True, "paired")
    assert [one["release"][0] for one in result["releases"]] == ["3"]
    assert result["best"]["commit"] == "3" * 40
    first, second = (result["left_out"][f"toy {number:012}, release {str(number) * 12}"] for number in (1, 2))
    assert first.count("is nowhere") == 2 and "it is for another task (data.target changed)" in second
    assert "2 earlier releases could not be compared" in result["reason"]


def test_where_production_cannot_be_had_its_record_counts_beside_the_others(world: World) -> None:
    world.follow(0.9)
    world.follow(0.8)
    del world.objects[world.releases[1].record.predictions.md5]
    result = world.gate()
    assert result["mode"] == "recorded"
    assert "as recorded" in result["releases"][0]["basis"] and result["releases"][0]["deployed"]
    assert result["releases"][1]["basis"] == opponents.SAME_ROWS
    assert result["best"]["commit"] == "1" * 40, "production's value is of other rows"


def test_where_nothing_is_run_the_best_stays_the_one_that_was_named(world: World) -> None:
    best = {"commit": "f" * 40, "model_version": "0" * 12, "value": 0.9}
    world.released(0.9, gate={"accepted": True, "mode": "paired", "reason": ".", "best": best})
    world.objects.clear()
    assert world.gate()["best"] == best | {"value": None}


def test_a_difference_that_is_not_proved_is_accepted_or_refused_as_params_yaml_says(world: World) -> None:
    world.released(skill=1.05)
    world.evaluate(skill=1.0, seed=2)  # independent noise: larger than what is measured
    world.settings["gate"]["tolerance"] = 0.0001
    result = world.gate()
    difference = result["difference"]
    assert result["accepted"] and result["mode"] == "paired"
    assert difference["lower"] < difference["value"] < -0.0001 and difference["upper"] > 0
    world.settings["gate"]["decision"] = "not_worse"
    refused = world.gate()
    assert not refused["accepted"]
    assert "may be 0.04" in refused["reason"] and "must be proved" in refused["reason"]
    world.settings["gate"]["tolerance"] = -difference["lower"]
    assert world.gate()["accepted"]
    world.settings["gate"]["tolerance"] = -difference["lower"] * 0.99
    assert not world.gate()["accepted"]


def test_not_worse_is_proved_against_every_release(world: World) -> None:
    """The newest release is much worse than the candidate, an older one a little better."""
    world.follow(1.02)
    world.follow(0.5)
    world.settings["gate"] |= {"decision": "not_worse", "tolerance": 0.0}
    result = world.gate()
    assert not result["accepted"]
    assert result["difference"]["lower"] > 0
    (rule,) = [rule for rule in result["rules"] if not rule["passed"]]
    assert rule["rule"] == "roc_auc proved at most 0 worse than each of 2 releases"
    assert rule["release"] == "toy 000000000001, release 111111111111"
    world.settings["gate"]["tolerance"] = -rule["bound"]
    assert world.gate()["accepted"]


def test_the_same_model_again_is_proved_not_worse(world: World) -> None:
    world.released(1.0)
    world.settings["gate"] |= {"decision": "not_worse", "tolerance": 0.0}
    assert world.gate()["accepted"]


@pytest.mark.parametrize("decision", ["proved_worse", "not_worse"])
def test_a_guardrail_is_decided_in_the_same_way(world: World, decision: str) -> None:
    world.settings["gate"] |= {"decision": decision, "tolerance": 1.0, "guardrail_metrics": {"brier": 0.001}}
    world.follow(3.0)
    world.follow(0.5)
    result = world.gate()
    assert result["reason"].startswith("Refused: brier ")
    assert "release 111111111111" in result["reason"]
    assert [rule["rule"].split()[0] for rule in result["rules"] if not rule["passed"]] == ["brier"]


def test_recorded_metrics_are_decided_by_bounds_at_the_same_level(world: World) -> None:
    world.released(skill=0.9)
    world.objects.clear()
    result = world.gate()
    difference = result["difference"]
    half = (difference["high"] - difference["low"]) / 2
    for bound in (difference["value"] - difference["lower"], difference["upper"] - difference["value"]):
        assert bound == pytest.approx(half * 1.6449 / 1.96, rel=1e-3)
    world.settings["gate"] |= {"decision": "not_worse", "tolerance": 0.001}
    assert not world.gate()["accepted"]
    world.settings["gate"]["tolerance"] = -difference["lower"]
    assert world.gate()["accepted"]


def test_too_few_resamples_for_a_bound_are_an_error_that_names_the_setting() -> None:
    with pytest.raises(ProjectError, match=r"set evaluate\.bootstrap to 19 or more"):
        differences.upper_bounds(np.zeros(1), np.zeros((10, 1)), 30)
