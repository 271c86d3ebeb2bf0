"""`make replay`: what the candidate would have answered to production's logged requests, beside the release."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gitops.core import artifacts
from gitops.core.sections import Evaluation
from gitops.core.value import Value
from gitops.gate.opponents import Predictions
from gitops.replay import changes, logged, stake
from replaying import COMMIT, FEATURES, OVER, World, compacted, label, prepared, schema


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return prepared(tmp_path, monkeypatch)


def incomes(rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([row["income"] for row in rows])


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_changed_decisions(world: World, form: str) -> None:
    """Production says yes above 0, the candidate above -0.3; what was logged as the answer then is not looked at."""
    world.release()
    world.candidate(bias=0.3)
    world.log(rows := world.rows(400))
    if form == "parquet":
        compacted()
    found = world.run()
    changed = int(((incomes(rows) > -0.3) & (incomes(rows) <= 0)).sum())
    assert (found["status"], found["rows"], found["groups"], found["release"]) == ("ok", 400, 400, COMMIT)
    assert found["changed"]["value"] == changed / 400
    assert 0 < found["changed"]["low"] < changed / 400 < found["changed"]["high"] < 0.25
    counts = {(each["production"], each["candidate"]): each["rows"] for each in found["transitions"]}
    assert counts["no", "yes"] == changed and ("yes", "no") not in counts and sum(counts.values()) == 400
    assert found["transitions"][0]["rows"] == changed  # changes come first
    largest = 1 / (1 + np.exp(-incomes(rows) - 0.3)) - 1 / (1 + np.exp(-incomes(rows)))
    assert found["sizes"]["largest"] == pytest.approx(largest.max(), abs=1e-6)
    assert sum(found["sizes"]["histogram"]["counts"]) == 400
    assert 0 < found["drift"] < 0.3
    assert all(found["latency"][name][rows] > 0 for name in ("candidate", "production") for rows in ("1", "100"))
    assert found["model_sha256"] == artifacts.digest(artifacts.MODEL)


def test_both_forms_of_the_log_give_the_same(world: World) -> None:
    world.release()
    world.candidate(weight=0.5, bias=0.3)
    world.log(world.rows(150))
    world.log(world.rows(50, seed=1), name="b")
    world.refuse(3, "income")
    first = world.run()
    compacted()
    second = world.run()
    assert first.pop("latency") and second.pop("latency") and first == second


def test_redacted_values_are_missing_for_both(world: World) -> None:
    """The candidate sees only the income, which the log does not tell: it answers as for one that is missing."""
    world.release(redact=["income", "plan"])
    world.candidate(bias=0.3)
    world.log(world.rows(150), redact=["income", "plan"])
    found = world.run()
    assert found["redacted"] == ["income", "plan"] and found["changed"]["value"] == 0  # 0.5 and 0.57: both say yes
    assert found["sizes"]["largest"] == pytest.approx(1 / (1 + np.exp(-0.3)) - 0.5)
    assert found["slices"].keys() == {"member"} and found["refusals"]["accepted"]["rows"] == 0


def test_a_category_may_read_redacted(world: World) -> None:
    """Where no setting hides it, that is a value."""
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150, plan="redacted"))
    found = world.run()
    assert found["redacted"] == [] and [*found["slices"]["plan"]] == ["(other)"]


def test_numbers(world: World) -> None:
    """A change counts from a tenth of the target's standard deviation on."""
    world.task("regression")
    world.release(schema("regression"))
    world.candidate(schema("regression"), weight=1.2)
    world.log(rows := world.rows(300), answer=1.5)
    found = world.run()
    deviation = artifacts.read_parquet(artifacts.TEST)["churned"].to_numpy().std()
    sizes = np.abs(0.2 * incomes(rows)) / deviation
    assert found["changed"]["value"] == pytest.approx((sizes > 0.1).mean()) and 0 < found["changed"]["value"] < 1
    assert found["tolerance"] == 0.1 and found["transitions"] == []
    assert found["sizes"]["quantiles"]["0.9"] == pytest.approx(np.quantile(sizes, 0.9), rel=1e-5)
    assert found["sizes"]["histogram"]["edges"][0] < 0 < found["sizes"]["histogram"]["edges"][-1]
    income, *_ = found["largest"]["columns"]
    assert income["column"] == "income" and income["distance"] > 0.4


def test_classes_in_another_order_and_a_new_one(world: World) -> None:
    """Classes are compared by their names: "mid" is the last in either order, and "new" is one that nobody was told."""
    world.task("multiclass")
    answer = {"label": "low", "probabilities": {"high": 0.2, "low": 0.5, "mid": 0.3}}
    world.log(rows := world.rows(200), answer=answer)
    world.release(schema("multiclass"))
    world.candidate(schema("multiclass", classes=["low", "high", "mid"]))
    found = world.run()
    below = int((incomes(rows) <= 0).sum())  # of equal probabilities the first counts
    assert {(each["production"], each["candidate"]): each["rows"] for each in found["transitions"]} == {
        ("high", "low"): below,
        ("mid", "mid"): 200 - below,
    }
    assert found["sizes"]["largest"] == pytest.approx(0, abs=1e-6)
    world.candidate(schema("multiclass", classes=["high", "low", "mid", "new"]), bias=3.0)
    assert ("mid", "new") in {(each["production"], each["candidate"]) for each in world.run()["transitions"]}


def test_slices(world: World) -> None:
    """Only values that training had are named, and only where they have enough rows."""
    world.release()
    world.candidate(bias=0.3)
    world.settings["evaluate"]["min_slice_rows"] = 40
    world.log(world.rows(100, plan="basic", income=-0.1, member=None))  # all of them change
    world.log(world.rows(60, seed=1, plan="no plan of ours", income=5.0, member=None))
    world.log(world.rows(39, seed=2, plan="plus", member=True))
    found = world.run()["slices"]
    assert found.keys() == {"plan", "member"} and found["plan"].keys() == {"basic", "(other)"}
    assert found["plan"]["basic"]["changed"]["value"] == 1 and found["plan"]["(other)"]["changed"]["value"] == 0
    assert found["plan"]["basic"]["largest"] > 0.8 and found["plan"]["(other)"]["largest"] == 0
    assert found["member"].keys() == {"(missing)"}


def test_rows_about_the_same_id_are_one_case(world: World) -> None:
    """As in a project with a feature store, whose requests name an entity; else those of one request are."""
    world.release()
    world.candidate(bias=0.3)
    world.log([row | {"customer": str(place % 10)} for place, row in enumerate(world.rows(150))])
    wide = world.run()
    assert (wide["rows"], wide["groups"]) == (150, 10)
    world.settings["request_log"]["redact"] = ["customer"]
    world.log([row | {"customer": "redacted"} for row in world.rows(50, seed=1)], request_id="one")
    assert world.run()["groups"] == 11


def test_values_of_a_feature_store_are_in_the_log(world: World) -> None:
    world.settings["feature_store"] = {"labels": "data/raw.csv", "features": "data/features.csv", "ttl_days": None}
    world.settings["data"] |= {"path": "data/joined.parquet", "id": "customer", "timestamp": "at"}
    its = schema() | {"timestamp": "at"}
    world.release(its)
    world.candidate(its, bias=0.3)
    rows = [row | {"customer": str(place), "at": "2026-01-01"} for place, row in enumerate(world.rows(150))]
    world.log(rows)
    found = world.run()
    assert (found["rows"], found["groups"], found["refusals"]["accepted"]["rows"]) == (150, 150, 0)


def test_labels(world: World) -> None:
    """Labels say who is right: here production; they come late, so more than the newest day is read."""
    world.release()
    world.candidate(weight=-1.0)
    late = OVER - timedelta(days=4)
    world.log(rows := world.rows(150), when=late)
    world.log(world.rows(1, seed=1), when=late, name="b", request_id="r1")  # an id that came twice
    label({f"r{place + 1}": "yes" if row["income"] > 0 else "no" for place, row in enumerate(rows)})
    found = world.run()
    assert found["logged"]["days"] == 30 and found["labelled"]["rows"] == 149
    accuracy = found["labelled"]["metrics"]["accuracy"]
    assert (accuracy["production"], accuracy["candidate"]) == (1, 0) and accuracy["difference"]["high"] < 0
    assert found["labelled"]["metrics"]["roc_auc"]["difference"]["value"] == -1


def test_sample(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows some are taken, the same ones each time, and of the newest day alone."""
    monkeypatch.setattr(logged, "ROWS", 120)
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(300))
    world.log(world.rows(100, seed=1), when=OVER - timedelta(days=5))
    first, second = world.run(), world.run()
    assert first.pop("latency") != second.pop("latency") and first == second
    assert (first["rows"], first["logged"]["answered"], first["logged"]["days"]) == (120, 300, 1)
    monkeypatch.setattr(logged, "ROWS", 350)
    more = world.run()
    assert (more["rows"], more["logged"]["answered"], more["logged"]["days"]) == (350, 400, 30)
    monkeypatch.setattr(logged, "CELLS", 4 * 110)
    assert world.run()["rows"] == 110


def test_another_threshold_alone_is_another_model(world: World) -> None:
    world.release(schema(threshold=0.5))
    world.candidate(schema(threshold=0.6))
    world.log(world.rows(150))
    found = world.run()
    assert found["changed"]["value"] > 0 and found["sizes"]["largest"] == 0


def test_what_sets_the_largest_changes_apart(world: World) -> None:
    """Rows with an income near -0.4 change most, and no other column has to do with it."""
    world.release(weight=1.0)
    world.candidate(weight=1.0, bias=0.8)
    world.log(world.rows(400))
    found = world.run()["largest"]
    assert found["rows"] == 30 and found["from"] > 0.1
    first, *others = found["columns"]
    assert first["column"] == "income" and first["distance"] > max(each["distance"] for each in others)
    assert {each["column"] for each in found["columns"]} <= {feature["name"] for feature in FEATURES}


def test_groups_widen_the_interval() -> None:
    """The 95 % interval is by groups: of ten groups that change as a whole it is far wider than of a thousand rows."""
    bootstrap = Evaluation(bootstrap=1000, min_slice_rows=30, seed=1)
    values = np.repeat(np.arange(10) < 4, 100)
    alone = changes.mean(values, np.arange(1000), bootstrap)
    together = changes.mean(values, np.repeat(np.arange(10), 100), bootstrap)
    assert alone.value == together.value == 0.4
    assert together.high - together.low > 5 * (alone.high - alone.low) > 0.2


#: A missed yes costs 100, a needless one 10.
AMOUNTS = {"no": {"no": 0.0, "yes": -10.0}, "yes": {"no": -100.0, "yes": 50.0}}
BOOTSTRAP = Evaluation(bootstrap=1000, min_slice_rows=30, seed=1)


def value(**given: Any) -> dict[str, Any]:
    """Return the section `value`."""
    return {"unit": "EUR", "decisions": 1000, "running_cost": 5.0, "answers": None, "error": None} | given


def test_value_is_what_each_model_believes() -> None:
    """The candidate expects its yes to be right, production its no."""
    section = Value.model_validate(value(answers=AMOUNTS, today={"answer": "no"}))
    production = Predictions(np.tile([0.95, 0.05], (50, 1)), np.zeros(50, int))
    candidate = Predictions(np.tile([0.2, 0.8], (50, 1)), np.ones(50, int))
    found = stake.gains(section, production, candidate, ["no", "yes"], np.arange(50), BOOTSTRAP)
    assert found["candidate"]["value"] == pytest.approx(1000 * (0.8 * 150 - 0.2 * 10))
    assert found["production"]["value"] == pytest.approx(1000 * (0.05 * 150 - 0.95 * 10))
    assert found["production"]["at_stake"] == pytest.approx(-found["production"]["value"])
    assert (found["unit"], found["decisions"]) == ("EUR", 1000)


def test_value_of_numbers() -> None:
    """Each model expects its own number: too low by 2 costs three for each unit, too high one."""
    section = Value.model_validate(value(error={"over": 1.0, "under": 3.0}, today={"answer": 0.0}))
    low, high = np.full(40, 3.0), np.full(40, 5.0)
    found = stake.gains(section, Predictions(low, low), Predictions(high, high), [], np.arange(40), BOOTSTRAP)
    assert found["candidate"]["value"] == pytest.approx(1000 * 2 * 3.0)
    assert found["production"]["value"] == pytest.approx(-1000 * 2 * 1.0)


def test_value_of_a_replay(world: World) -> None:
    """Beliefs where nothing is known, and the truth where labels have come, which is production's here."""
    world.settings["value"] = value(answers=AMOUNTS, today={"answer": "no"})
    world.release()
    world.candidate(weight=-1.0)
    world.log(rows := world.rows(150))
    label({f"r{place + 1}": "yes" if row["income"] > 0 else "no" for place, row in enumerate(rows)})
    found = world.run()
    assert found["value"]["candidate"]["value"] > 0 > found["value"]["production"]["value"]
    worth = found["labelled"]["metrics"]["expected_value"]
    assert worth["production"] > 0 > worth["candidate"] and worth["difference"]["high"] < 0
    world.settings["value"] = None
    found = world.run()
    assert found["value"] is None and "expected_value" not in found["labelled"]["metrics"]
