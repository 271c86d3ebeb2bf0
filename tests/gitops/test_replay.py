"""`make replay`: what the candidate would have answered to production's logged requests, beside the release."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Evaluation
from gitops.core.value import Value
from gitops.gate import champion_challenger
from gitops.gate.opponents import Predictions
from gitops.replay import changes, fitting, logged, stake
from replaying import COMMIT, FEATURES, OVER, World, compacted, prepared, schema


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


def test_a_column_that_the_log_lacks(world: World) -> None:
    """It is missing for the candidate, whose server would refuse such rows."""
    world.release()
    world.candidate(schema("binary", {"name": "age", "dtype": "number"}), bias=0.3)
    world.log(world.rows(150))
    found = world.run()
    assert found["status"] == "ok" and found["changed"]["value"] > 0
    needs = {"column": "age", "why": fitting.MISSING, "rows": 150}
    assert found["refusals"]["accepted"] == {"rows": 150, "columns": [needs]}
    assert found["refusals"]["changed_columns"] == ["age"]


def test_a_column_that_the_candidate_does_not_know_or_takes_otherwise(world: World) -> None:
    world.release()
    changed = {"name": "plan", "dtype": "number"}
    its = schema("binary", without="member")
    its["features"] = [changed if feature["name"] == "plan" else feature for feature in its["features"]]
    world.candidate(its | {"slices": []}, bias=0.3)
    world.log(world.rows(140))
    world.log(world.rows(10, plan=None))
    found = world.run()
    assert found["refusals"]["accepted"] == {
        "rows": 150,
        "columns": [
            {"column": "member", "why": fitting.UNKNOWN, "rows": 150},
            {"column": "plan", "why": fitting.UNFIT, "rows": 140},
        ],
    }


def test_refused_requests(world: World) -> None:
    """Those that were refused for nothing but columns that the candidate takes otherwise may be accepted now."""
    world.release()
    world.candidate(schema("binary", {"name": "age", "dtype": "number"}, without="member"), bias=0.3)
    world.log(world.rows(120))
    world.refuse(3, "member")
    world.refuse(2, "member", "age")
    world.refuse(4, "member", "income")
    world.refuse(5, None)
    world.refuse(6, "a column of the client's own")
    world.refuse(7, None, status=500)
    assert world.run()["refusals"]["refused"] == {"requests": 20, "by_changed_columns": 5}


def test_rows_that_production_would_refuse_now(world: World) -> None:
    """An earlier release has answered them, whose clients have changed since; other lines are no server's."""
    world.release(schema("binary", {"name": "age", "dtype": "number"}))
    world.candidate(schema("binary", {"name": "age", "dtype": "number"}), bias=0.3)
    world.log(world.rows(120, age=40.0))
    world.log(world.rows(30), name="earlier")
    path = next(Path("requests").rglob("a.jsonl"))
    path.write_text(path.read_text() + "broken\n{}\n")
    found = world.run()
    assert (found["rows"], found["left_out"], found["logged"]["answered"]) == (120, 30, 150)
    assert found["logged"]["other_form"] == 2 and found["refusals"]["accepted"]["rows"] == 0


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


def label(texts: dict[str, str]) -> None:
    Path("labels").mkdir(exist_ok=True)
    lines = "".join(f"{request},{text}\n" for request, text in texts.items())
    Path("labels/a.csv").write_text(f"request_id,label\n{lines}")


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


def test_labels_that_say_too_little(world: World) -> None:
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    label({f"r{place}": "no" for place in range(1, 50)})
    assert "49 labelled rows" in world.run()["labelled"]["reason"]
    label({f"r{place}": "no" for place in range(1, 150)})
    found = world.run()["labelled"]
    assert found["metrics"].keys() == {"accuracy"} and found["reason"] is None  # one class defines no ROC AUC
    label({f"r{place}": "perhaps" for place in range(1, 150)})
    assert "0 labelled rows" in world.run()["labelled"]["reason"]
    Path("labels/a.csv").write_text("request,class\nr1,no\n")
    assert world.run()["labelled"]["reason"].startswith("LABELS cannot be read")


def test_labels_that_cannot_be_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a part of the replay, and fail by themselves."""

    def failing(*_: object) -> None:
        raise ProjectError("too few resamples")

    monkeypatch.setattr(champion_challenger, "paired", failing)
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    label({f"r{place}": "no" for place in range(1, 150)})
    found = world.run()
    assert found["status"] == "ok" and found["labelled"]["reason"] == "too few resamples"


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


def test_nothing_to_replay(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No release, no log, the model in production, another task: none is worth a warning."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.candidate()
    assert "nothing is released" in world.run()["reason"]
    world.release()
    assert "REQUEST_LOG is not set" in world.run()["reason"]
    world.log(world.rows(150))
    found = world.run()
    assert (found["status"], found["release"]) == ("none", COMMIT) and "is the model in production" in found["reason"]
    world.settings["data"]["target"] = "another"
    world.candidate(bias=0.3)
    assert world.run()["reason"] == "the release is for another task (data.target changed)"
    assert "::warning" not in capsys.readouterr().out


def test_another_threshold_alone_is_another_model(world: World) -> None:
    world.release(schema(threshold=0.5))
    world.candidate(schema(threshold=0.6))
    world.log(world.rows(150))
    found = world.run()
    assert found["changed"]["value"] > 0 and found["sizes"]["largest"] == 0


@pytest.mark.parametrize("rows", [0, 99])
def test_too_few_requests(
    world: World, rows: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.release()
    world.candidate(bias=0.3)
    Path("requests").mkdir()
    world.log(world.rows(rows))
    found = world.run()
    assert found["status"] == "too_few" and f"{rows} rows of the last 30 days" in found["reason"]
    assert "::warning title=Replay::Too few requests to replay" in capsys.readouterr().out


def test_log_that_cannot_be_reached(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("REQUEST_LOG", "/no/such/folder")
    world.release()
    world.candidate(bias=0.3)
    found = world.run()
    assert found["status"] == "failed" and "'/no/such/folder': there is no such folder" in found["reason"]
    assert "::warning title=Replay::The replay failed" in capsys.readouterr().out


def test_release_of_other_code(world: World) -> None:
    """This code does not give its golden answer: what it would answer to requests says nothing of production."""
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    released = Path("remote/released.mar")
    with zipfile.ZipFile(released) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    contents["golden_response.json"] = contents["golden_response.json"].replace(b"0.5", b"0.4")
    with zipfile.ZipFile(released, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    found = world.run()
    assert found["status"] == "failed" and "production's model cannot be run by this code" in found["reason"]
    assert "fails its smoke test" in found["reason"]


def test_the_model_is_missing(world: World) -> None:
    world.release()
    Path("requests").mkdir()
    found = world.run()
    assert (found["status"], found["package_md5"]) == ("failed", None) and "run `make pipeline` first" in found[
        "reason"
    ]


def test_an_unfinished_replay_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    monkeypatch.setattr(logged, "read", ended)
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert '"it did not finish"' in artifacts.REPLAY.read_text()


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
