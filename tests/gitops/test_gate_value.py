"""The gate decides by the expected value: by today's amounts, for every release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gating
import pytest
from breast_cancer import metrics
from gating import ACTUAL, CLASSES, SETTINGS, World
from gitops.core import artifacts
from gitops.core.value import EXPECTED_VALUE, Value
from valuing import tumours

VALUE = tumours("malignant", "benign", -2000)


def worth_of(skill: float, value: dict[str, Any] = VALUE) -> float:
    """Return the expected value of a model of that skill."""
    outputs = gating.outputs(skill)
    metric = metrics.of("binary", CLASSES, Value.model_validate(value))[EXPECTED_VALUE]
    return metric.score(ACTUAL, outputs, outputs.argmax(axis=1))


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 2000, "high": value + 2000}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A candidate of skill 1, evaluated with a section `value`; its releases are of before there was one."""
    made = gating.prepared(tmp_path, monkeypatch)
    gate = {"primary_metric": EXPECTED_VALUE, "thresholds": {EXPECTED_VALUE: -1e6}, "tolerance": 1000.0}
    made.settings |= {"value": VALUE, "gate": gate}
    evaluated = artifacts.read_json(artifacts.METRICS, "")
    evaluated["metrics"][EXPECTED_VALUE] = score(worth_of(1.0))
    artifacts.write_json(artifacts.METRICS, evaluated)
    return made


def test_releases_that_have_no_recorded_value_are_compared_by_their_predictions(world: World) -> None:
    world.released(skill=0.3)
    result = world.gate()
    assert (result["accepted"], result["mode"], result["metric"]) == (True, "paired", EXPECTED_VALUE)
    assert result["production"] == pytest.approx(worth_of(0.3))
    assert result["difference"]["value"] == pytest.approx(worth_of(1.0) - worth_of(0.3))
    assert "expected_value (EUR a month) is -" in result["reason"] and "e+" not in result["reason"]
    world.released(skill=3.0)
    result = world.gate()
    assert not result["accepted"] and "worse" in result["reason"] and result["difference"]["value"] < -1000


def test_a_threshold_is_in_the_unit(world: World) -> None:
    world.settings["gate"]["thresholds"] = {EXPECTED_VALUE: -20_000}
    result = world.gate()
    assert not result["accepted"]
    assert "and expected_value (EUR a month) at least -20,000 is needed (gate.thresholds)" in result["reason"]


def test_it_may_be_a_guardrail_and_a_limit_of_slices(world: World) -> None:
    gate = {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.5}, "guardrail_metrics": {EXPECTED_VALUE: 1000.0}}
    world.settings["gate"] = gate | {"slices": {EXPECTED_VALUE: -20_000}}
    world.settings["data"]["slices"] = ["sex"]
    cells = {"f": {"rows": 50, "metrics": {EXPECTED_VALUE: score(-30_000)}}}
    artifacts.write_json(artifacts.METRICS, artifacts.read_json(artifacts.METRICS, "") | {"slices": {"sex": cells}})
    world.released(skill=3.0)
    reason = world.gate()["reason"]
    assert "expected_value (EUR a month) is -30,000 where sex is f (95 % interval -32,000 to -28,000)" in reason
    assert "(gate.guardrail_metrics)" in reason


def test_amounts_of_today_decide_and_not_those_of_the_release(world: World) -> None:
    then = VALUE | {"decisions": 4}
    recorded = world.scores(0.3) | {EXPECTED_VALUE: score(worth_of(0.3, then))}
    world.released(skill=0.3, params=gating.complete(SETTINGS) | {"value": then}, metrics=recorded)
    assert world.gate()["production"] == pytest.approx(worth_of(0.3))


@pytest.mark.parametrize("decisions", [400, 4])
def test_without_predictions_a_recorded_value_counts_if_its_amounts_are_todays(world: World, decisions: int) -> None:
    then = VALUE | {"decisions": decisions}
    recorded = world.scores(0.3) | {EXPECTED_VALUE: score(worth_of(0.3, then))}
    params = gating.complete(SETTINGS) | {"value": Value.model_validate(then).model_dump(mode="json")}
    world.released(skill=0.3, params=params, metrics=recorded)
    world.objects.clear()
    result = world.gate()
    assert result["mode"] == "recorded" and result["accepted"] is (decisions == 400)
    if decisions == 400:
        assert result["production"] == pytest.approx(worth_of(0.3))
    else:
        assert "expected_value (EUR a month) of toy" in result["reason"] and "is not known" in result["reason"]
        assert result["production"] is None


def test_a_release_with_a_value_is_compared_where_there_is_none_now(world: World) -> None:
    """The section was set to null again."""
    recorded = world.scores(0.3) | {EXPECTED_VALUE: score(-1.0)}
    world.settings |= {"value": None, "gate": SETTINGS["gate"]}
    for objects in (True, False):
        world.released(skill=0.3, params=gating.complete(SETTINGS) | {"value": VALUE}, metrics=recorded)
        if not objects:
            world.objects.clear()
        result = world.gate()
        assert result["accepted"] and EXPECTED_VALUE not in result["differences"]
