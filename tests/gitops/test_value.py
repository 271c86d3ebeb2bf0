"""What decisions are worth: the section `value`, the metric, today's way, and the curves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from breast_cancer import metrics
from conftest import SETTINGS
from gitops.core import params
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Evaluation
from gitops.core.value import EXPECTED_VALUE, Value
from gitops.releases.record import Release
from gitops.value import curves, summary, today, worth
from gitops.value.metric import ExpectedValue
from valuing import tumours

TUMOURS = tumours()
STOCK = TUMOURS | {"answers": None, "error": {"over": 1.0, "under": 3.0}, "today": {"answer": 2.0}}
CLASSES = ["good", "bad"]
SCHEMA: dict[str, Any] = {
    "task": "binary",
    "target": {"name": "y", "classes": CLASSES, "threshold": 0.3},
    "features": [
        {"name": "size", "dtype": "number"},
        {"name": "member", "dtype": "boolean"},
        {"name": "colour", "dtype": "category"},
    ],
    "slices": ["site", "colour"],
}
NUMBERS = SCHEMA | {"task": "regression", "target": {"name": "y", "classes": []}}
BOOTSTRAP = Evaluation(bootstrap=1000, min_slice_rows=30, seed=1)


def value_of(**changes: Any) -> Value:
    return Value.model_validate(TUMOURS | changes)


def loaded(folder: Path, value: Any, *, task: str = "binary", **sections: Any) -> params.Params:
    """Return the settings with a section `value`, from a file."""
    values = copy.deepcopy(SETTINGS)
    values["data"] |= {"task": task}
    if task != "binary":
        metric = next(iter(metrics.METRICS[task]))
        values["gate"] = {"primary_metric": metric, "thresholds": {metric: 0.5}}
    for section, changes in sections.items():
        values[section] = values.get(section, {}) | changes
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values | {"value": value}))
    return params.load(path)


# --- The section


def test_without_it_there_is_no_such_metric(tmp_path: Path) -> None:
    settings = loaded(tmp_path, None)
    assert EXPECTED_VALUE not in settings.better and settings.label("f1") == "f1"
    assert metrics.of("binary", CLASSES, settings.value) == metrics.METRICS["binary"]


def test_with_it_the_metric_has_a_direction_and_a_unit(tmp_path: Path) -> None:
    gate = {"primary_metric": EXPECTED_VALUE, "thresholds": {EXPECTED_VALUE: -90_000}}
    settings = loaded(
        tmp_path, TUMOURS, gate=gate, tune={"metric": EXPECTED_VALUE}, train={"threshold": EXPECTED_VALUE}
    )
    assert [*settings.better] == [*metrics.METRICS["binary"], EXPECTED_VALUE]
    assert settings.sign(EXPECTED_VALUE) == 1 and settings.sign("brier") == -1
    assert settings.label(EXPECTED_VALUE) == "expected_value (EUR a month)"
    assert [*metrics.of("binary", CLASSES, settings.value)] == [*settings.better]


@pytest.fixture
def params_yaml(tmp_path: Path) -> Path:
    """A params.yaml of before there was the section."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({key: values for key, values in SETTINGS.items() if key != "value"}))
    return path


def test_an_older_project_is_told_what_to_add(params_yaml: Path) -> None:
    with pytest.raises(ProjectError, match=r"value is missing: add the line `value: null`"):
        params.load(params_yaml)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answers": {"bad": {"bad": 0}, "good": {"bad": 0, "good": 0}}},
            r"answers\.bad has amounts for bad: .* bad, good",
        ),
        ({"answers": {"bad": {"bad": 0}}}, r"value\.answers has 1 classes \(bad\), and task 'binary' has two"),
        ({"answers": None}, r"value\.answers is null, and task 'binary' needs it: what one decision earns"),
        ({"error": {"over": 1, "under": 2}}, r"value\.error is set, which task 'binary' does not have: set it to null"),
        (
            {"today": {"answer": "ugly"}},
            r"value\.today answers 'ugly', which is no class: value\.answers has bad, good",
        ),
        ({"today": {"answer": 1.0}}, r"value\.today answers 1\.0, which is no class"),
        (
            {"today": {"column": "x", "at_least": 1.0, "answer": "bad"}},
            r"value\.today: answer is needed, the same for all",
        ),
        ({"today": {}}, r"value\.today: answer is needed"),
        ({"today": {"answer": "bad", "otherwise": "good"}}, r"value\.today: answer is needed"),
        ({"decisions": 0}, r"value\.decisions is 0"),
        ({"running_cost": -1}, r"value\.running_cost is -1"),
        ({"unit": ""}, r"value\.unit is ''"),
        ({"unit": "EUR\nper month"}, r"value\.unit is 'EUR\\nper month'"),
        ({"currency": "EUR"}, r"value\.currency is not a setting"),
        (
            {"answers": {"bad": {"bad": float("inf"), "good": 0}, "good": {"bad": 0, "good": 0}}},
            r"answers\.bad\.bad is inf",
        ),
        ({"answers": {1: {1: 0, 0: 0}, 0: {1: 0, 0: 0}}}, r"value\.answers\.1\.\[key\] is 1: .* put it in quotes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        loaded(tmp_path, TUMOURS | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error": None}, r"value\.error is null, and task 'regression' needs it: .*over: 1\.0, under: 3\.0"),
        ({"answers": TUMOURS["answers"]}, r"value\.answers is set, which task 'regression' does not have"),
        ({"today": {"answer": "bad"}}, r"value\.today answers 'bad': the target is a number"),
        ({"error": {"over": -1.0, "under": 3.0}}, r"value\.error\.over is -1\.0"),
    ],
)
def test_what_does_not_fit_numbers_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        loaded(tmp_path, STOCK | changes, task="regression")
    assert loaded(tmp_path, STOCK, task="regression").better[EXPECTED_VALUE] == "higher"
    assert loaded(tmp_path, STOCK | {"today": {"answer": 2}}, task="regression").value is not None


def test_the_positive_class_must_have_an_amount(tmp_path: Path) -> None:
    with pytest.raises(
        ProjectError, match=r"value\.answers lacks 'yes', which is data\.positive; it has bad, good: .*null"
    ):
        loaded(tmp_path, TUMOURS, data={"positive": "yes"})


@pytest.mark.parametrize("section", ["train", "gate"])
def test_naming_it_without_the_section_is_an_error_that_says_so(tmp_path: Path, section: str) -> None:
    changes = {"train": {"threshold": EXPECTED_VALUE}, "gate": {"guardrail_metrics": {EXPECTED_VALUE: 1.0}}}[section]
    with pytest.raises(ProjectError, match=r"names 'expected_value', and value is null: say there what"):
        loaded(tmp_path, None, **{section: changes})


def test_a_threshold_by_amounts_that_no_answer_changes_is_refused(tmp_path: Path) -> None:
    same = {"bad": {"bad": -1, "good": -1}, "good": {"bad": 2, "good": 2}}
    with pytest.raises(ProjectError, match=r"train\.threshold names 'expected_value', which no decision changes"):
        loaded(tmp_path, TUMOURS | {"answers": same}, train={"threshold": EXPECTED_VALUE})
    # Answers matter here, although all right ones together earn as much as all wrong ones.
    one_sided = {"bad": {"bad": 2, "good": 1}, "good": {"bad": 1, "good": 0}}
    loaded(tmp_path, TUMOURS | {"answers": one_sided}, train={"threshold": EXPECTED_VALUE})


# --- What decisions earn


def test_of_classes_each_row_earns_what_its_cell_says() -> None:
    actual, predicted = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert worth.of_rows(value_of(), actual, predicted, CLASSES).tolist() == [-400, -20000, -400, 0]
    score = ExpectedValue(value_of(), CLASSES).score(actual, np.zeros((4, 2)), predicted)
    assert score == 400 * (-400 - 20000 - 400) / 4 - 500


def test_of_three_classes_the_order_of_the_schema_counts() -> None:
    answers = {name: {other: 10 * i + j for j, other in enumerate("abc")} for i, name in enumerate("abc")}
    value = value_of(answers=answers, today={"answer": "a"})
    assert worth.matrix(value, [*"cab"]).tolist() == [[22, 20, 21], [2, 0, 1], [12, 10, 11]]
    assert worth.of_rows(value, np.array([0, 2]), np.array([1, 1]), [*"cab"]).tolist() == [20, 10]


def test_of_numbers_too_much_and_too_little_cost_their_own() -> None:
    value = Value.model_validate(STOCK)
    earned = worth.of_rows(value, np.array([1.0, 1.0, 1.0]), np.array([1.5, 0.5, 1.0]), [])
    assert earned.tolist() == [-0.5, -1.5, 0]
    assert ExpectedValue(value, []).score(np.array([1.0]), np.array([3.0]), np.array([3.0])) == -400 * 2 - 500
    assert worth.range_of(value, []) is None


def test_amounts_for_other_classes_are_an_error_that_names_both() -> None:
    with pytest.raises(
        ProjectError, match=r"value\.answers is for bad, good, and the target's classes are no, yes: .*null"
    ):
        ExpectedValue(value_of(), ["no", "yes"])


def test_a_recorded_value_counts_if_the_amounts_were_the_same() -> None:
    scores = {name: {"value": 1.0, "low": 0.0, "high": 2.0} for name in ("f1", EXPECTED_VALUE)}
    value = value_of()
    for section, known in (
        (None, False),
        (value.model_dump(mode="json"), True),
        (value_of(today={"answer": "good"}).model_dump(mode="json"), True),
        (value_of(decisions=401).model_dump(mode="json"), False),
    ):
        record = Release.model_construct(metrics=scores, params={"value": section})
        assert (EXPECTED_VALUE in record.comparable(value)) is known
        assert (EXPECTED_VALUE in record.comparable(None)) is (section is None)
        assert [*record.comparable(section)] == [*scores]
    assert [*Release.model_construct(metrics=scores, params={}).comparable(value)] == ["f1"]


# --- Today's way

FRAME = pd.DataFrame(
    {
        "size": [1.0, 2.0, np.nan],
        "member": pd.array([True, False, None], dtype="boolean"),
        "colour": ["red", "blue", None],
        "site": ["bad", "good", "bad"],
    }
)


@pytest.mark.parametrize(
    ("way", "answers", "name"),
    [
        ({"answer": "bad"}, [1, 1, 1], "bad for all"),
        (
            {"column": "size", "at_least": 2.0, "answer": "bad", "otherwise": "good"},
            [0, 1, 0],
            "bad where size is at least 2, else good",
        ),
        (
            {"column": "member", "at_least": 1.0, "answer": "good", "otherwise": "bad"},
            [0, 1, 1],
            "good where member is at least 1, else bad",
        ),
        ({"column": "site"}, [1, 0, 1], "the value of site"),
    ],
)
def test_the_answers_of_today(way: dict[str, Any], answers: list[int], name: str) -> None:
    value = value_of(today=way)
    assert today.answers(value, FRAME, SCHEMA).tolist() == answers
    assert today.name(value.today) == name
    assert today.columns(value) == ([way["column"]] if "column" in way else [])


@pytest.mark.parametrize(
    ("way", "answers"),
    [
        ({"answer": 2.5}, [2.5, 2.5]),
        ({"column": "size"}, [1.0, 2.0]),
        ({"column": "size", "at_least": 2.0, "answer": 9.0, "otherwise": 3.0}, [3.0, 9.0]),
    ],
)
def test_the_answers_of_today_as_numbers(way: dict[str, Any], answers: list[float]) -> None:
    assert today.answers(Value.model_validate(STOCK | {"today": way}), FRAME[:2], NUMBERS).tolist() == answers


@pytest.mark.parametrize(
    ("value", "schema", "message"),
    [
        (
            TUMOURS | {"today": {"column": "weight"}},
            SCHEMA,
            r"'weight', which the splits lack; they have site, colour, size",
        ),
        (TUMOURS | {"today": {"column": "colour"}}, SCHEMA, r"'colour', .* in 3 of 3 rows it is missing or no class"),
        (STOCK | {"today": {"column": "size"}}, NUMBERS, r"'size', .* in 1 of 3 rows it is missing: fill it in"),
        (STOCK | {"today": {"column": "colour"}}, NUMBERS, r"'colour', a category: a number is needed"),
        (STOCK | {"today": {"column": "site"}}, NUMBERS, r"'site', which holds texts: a number is needed"),
    ],
)
def test_a_column_that_gives_no_answers_is_named(value: Any, schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=rf"value\.today\.column is {message}") as error:
        today.answers(Value.model_validate(value), FRAME, schema)
    assert "red" not in str(error.value)


# --- What is written


def rows(count: int = 200) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return actual classes and the probabilities of a model that mostly knows them."""
    rng = np.random.default_rng(0)
    actual = (rng.random(count) < 0.4).astype(int)
    positive = 1 / (1 + np.exp(-(4 * actual - 2 + rng.normal(size=count))))
    return actual, np.stack([1 - positive, positive], axis=1)


def summed(
    value: Value, actual: Any, predicted: Any, without: Any, schema: dict[str, Any], groups: Any
) -> dict[str, Any]:
    model = {"value": 1.0, "low": 0.0, "high": 2.0, "coverage": None}
    found = summary.of(value, schema, (actual, predicted, without), model, groups, BOOTSTRAP)
    assert found["model"] == {"value": 1.0, "low": 0.0, "high": 2.0}
    return found


def test_the_summary_has_todays_value_and_the_gain() -> None:
    actual, outputs = rows()
    predicted = (outputs[:, 1] >= 0.05).astype(int)
    found = summed(value_of(), actual, predicted, np.ones(200, dtype=int), SCHEMA, np.arange(200))
    assert {key: found[key] for key in ("unit", "decisions", "running_cost")} == {
        "unit": "EUR",
        "decisions": 400,
        "running_cost": 500,
    }
    # Each is answered as bad: that costs 400, whoever it is.
    assert found["today"] == {"name": "bad for all", "value": -160_000, "low": -160_000, "high": -160_000}
    model = ExpectedValue(value_of(), CLASSES).score(actual, outputs, predicted)
    assert found["gain"]["value"] == pytest.approx(model + 160_000)
    assert found["gain"]["low"] < found["gain"]["value"] < found["gain"]["high"] < 160_000 - 500


def test_a_mistake_that_was_not_seen_is_in_the_interval() -> None:
    """No bad row of 200 was missed; a rate of 1 in 200, which does not exclude that, would cost 40,000 more a month."""
    actual, outputs = np.arange(200) % 2, np.zeros((200, 2))
    value, low, high = (
        ExpectedValue(value_of(), CLASSES),
        *ExpectedValue(value_of(), CLASSES).interval((actual, outputs, actual), np.arange(200), 2000, 1),
    )  # type: ignore[misc]
    score = value.score(actual, outputs, actual)
    assert low < score - 40_000 and score <= high


def test_groups_widen_the_gain() -> None:
    actual, outputs = rows()
    predicted, without = (outputs[:, 1] >= 0.05).astype(int), (outputs[:, 0] < 0.9).astype(int)
    alone, together = (
        summed(value_of(today={"column": "site"}), actual, predicted, without, SCHEMA, groups)["gain"]
        for groups in (np.arange(200), np.arange(200) // 10)
    )
    assert together["value"] == alone["value"]
    assert together["low"] < alone["low"]


def test_of_numbers_the_gain_is_resampled_in_pairs() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=300)
    close, far = actual + 0.1 * rng.normal(size=300), actual + 1.0
    found = summed(Value.model_validate(STOCK | {"running_cost": 50}), actual, close, far, NUMBERS, np.arange(300))
    assert [found["today"][key] for key in ("value", "low", "high")] == pytest.approx([-400] * 3)
    assert 0 < found["gain"]["low"] < found["gain"]["value"] < found["gain"]["high"] < 400 - 50


def test_the_value_curve_is_what_the_metric_says_at_each_threshold() -> None:
    actual, outputs = rows()
    without = np.ones(200, dtype=int)
    table = curves.value_curve(value_of(), CLASSES, actual, outputs[:, 1], without, 0.3)
    assert [*table] == ["threshold", "model", "all", "none", "today"]
    assert 0.3 in table["threshold"].tolist() and table["threshold"].is_monotonic_increasing
    metric = ExpectedValue(value_of(), CLASSES)
    for threshold, model in zip(table["threshold"], table["model"], strict=True):
        assert model == pytest.approx(metric.score(actual, outputs, (outputs[:, 1] >= threshold).astype(int)))
    assert table["all"].unique().tolist() == table["today"].unique().tolist() == [-160_000]
    assert table["none"].unique().tolist() == [pytest.approx(-20_000 * 400 * actual.mean())]
    assert table["model"].iloc[0] == -160_500


def test_the_decision_curve_is_that_of_the_paper() -> None:
    actual, outputs = rows()
    table = curves.decision_curve(actual, outputs[:, 1])
    assert [*table] == ["probability", "model", "all", "none"] and table["probability"].between(0, 1, "neither").all()
    for p, model, everybody, nobody in table.itertuples(index=False):
        treated = outputs[:, 1] >= p
        benefit = (treated & (actual == 1)).mean() - (treated & (actual == 0)).mean() * p / (1 - p)
        assert model == pytest.approx(benefit)
        assert everybody == pytest.approx(actual.mean() - (1 - actual.mean()) * p / (1 - p)) and nobody == 0


def test_only_two_classes_have_curves() -> None:
    actual, outputs = rows()
    frame = FRAME.loc[np.zeros(200, dtype=int)]
    assert {*curves.tables(value_of(), SCHEMA, actual, outputs, frame)} == {"value", "decision_curve"}
    assert curves.tables(None, SCHEMA, actual, outputs, frame) == {}
    assert curves.tables(value_of(), SCHEMA | {"task": "multiclass"}, actual, outputs, frame) == {}
