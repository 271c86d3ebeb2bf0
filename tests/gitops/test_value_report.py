"""What the report says of value: the section and its chart, the page's pictures, and how production's is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from breast_cancer.settings import Settings
from conftest import SETTINGS
from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW
from gitops.integrations import dvc
from gitops.releases.record import Deployed, Score
from gitops.rendering.amounts import amount, signed
from gitops.rendering.markdown import PALETTE
from gitops.reporting import context, page, production_value, report, sections, value_curve, value_plots
from gitops.reporting.context import Context
from gitops.reporting.production_value import ProductionValue
from gitops.value import curves, worth
from test_report import HOSTILE, candidate
from test_report import data_md5 as data_md5
from valuing import tumours

#: A unit as a person may write it: two of its characters would begin and end a formula in a picture.
UNIT = "US$ <b>$"

AMOUNTS = tumours()


def estimate(value: float, width: float = 1000) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


#: `value` of metrics.json.
FOUND: dict[str, Any] = {
    "unit": "EUR",
    "decisions": 400,
    "running_cost": 500,
    "model": estimate(-71250.4),
    "today": {"name": "bad for all", **estimate(-160000)},
    "gain": estimate(88749.6),
}

#: Points of a value curve; the best threshold is 0.25.
CURVE = [
    {"threshold": threshold, "model": model, "all": -160000.0, "none": -3000000.0, "today": -160000.0}
    for threshold, model in ((0.0, -160500.0), (0.25, -71250.0), (0.5, -400000.0), (1.0, -3000500.0))
]


def valued(value: dict[str, Any] | None = None, found: dict[str, Any] | None = None, **changes: Any) -> Context:
    """The context of a candidate whose answers have a value; `value`: the section of params.yaml."""
    case = candidate(value_curve=CURVE, production_value=ProductionValue(estimate(-90000)), **changes)
    case.settings = Settings.model_validate(SETTINGS | {"value": value or AMOUNTS})
    assert case.metrics
    case.metrics["metrics"]["expected_value"] = FOUND["model"]
    case.metrics["value"] = FOUND if found is None else found
    case.metrics["confusion"]["classes"] = ["good", "bad"]
    return case


def section(text: str) -> str:
    """Return the report's section about value."""
    return text[text.index("### Value") :].partition("\n### ")[0]


def test_the_gain_over_todays_way_comes_right_after_the_result() -> None:
    production = ProductionValue(estimate(-90000), "", {**estimate(18749.6, 20000), "lower": 0, "upper": 0})
    text = report.compose(replace(valued(), production_value=production))
    assert text.index("## ✅ Accepted") < text.index("### Value") < text.index("### Metrics")
    for expected in (
        "Deciding with this model is worth **88,750 EUR a month more** than what is done today, bad for all "
        "(95 %: 87,750 to 89,750). 🟢 That is more than chance: the whole interval is above 0.",
        "|  | EUR a month | 95 % interval | the candidate is worth more by |",
        "| candidate | **-71,250** | -72,250 to -70,250 |  |",
        "| production | -90,000 | -91,000 to -89,000 | +18,750 (-1,250 to 38,750) ⚪ |",
        "| today: bad for all | -160,000 | -161,000 to -159,000 | +88,750 (87,750 to 89,750) 🟢 |",
        "400 decisions a month; running the model costs 500, taken off (`value` in params.yaml).",
        "The candidate's threshold is 0.3125.",
    ):
        assert expected in section(text), expected
    summary = sections.join(valued(), sections.SUMMARY)
    assert summary.index("## ✅ Accepted") < summary.index("### Value") < summary.index("### Metrics")


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (
            estimate(-5000),
            "**5,000 EUR a month less** than what is done today, bad for all (95 %: -6,000 to -4,000). 🔴",
        ),
        (
            estimate(500),
            "**500 EUR a month more** than what is done today, bad for all (95 %: -500 to 1,500). ⚪ It may",
        ),
        (estimate(0, 0), "**as much a month** as what is done today, bad for all (95 %: always the same)"),
    ],
)
def test_the_report_says_whether_the_gain_is_sure(gain: dict[str, float], words: str) -> None:
    assert words in section(report.compose(valued(found=FOUND | {"gain": gain})))


def test_without_amounts_the_report_is_the_same_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte: no section, no chart, no picture, whatever else lies there."""
    monkeypatch.chdir(tmp_path)
    case = candidate(value_curve=CURVE)
    before = [each for each in sections.ORDER if each.__name__ != "value"]
    assert sections.join(case, sections.ORDER) == sections.join(case, before)
    assert report.compose(case) == sections.join(case, before) + "\n"
    assert "a month" not in report.compose(case)
    assert [title for title, _ in page._plots(case)] == ["Learning curve", "Against production", "Confusion"]
    assert production_value.find(case.settings, {}, {"test_md5": "same"}, None, case.production) is None


def test_unit_classes_and_columns_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plots()
    today = f"{HOSTILE} where {HOSTILE} is at least 1, else good"
    case = valued(found=FOUND | {"unit": UNIT, "today": {"name": today, **estimate(-160000)}})
    case.metrics["confusion"]["classes"] = ["good", HOSTILE]  # type: ignore[index]
    text = section(report.compose(case))
    assert "<img" not in text and "<b>" not in text and "@everyone" not in text and "<!--" not in text
    assert not re.search(r"(?<!\\)\[click", text)
    chart = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    texts = re.findall('"(.*?)"', chart[1].replace(PALETTE, "")) if chart else []
    assert set(texts) == {"Value a month by threshold", "threshold"}
    html = page.page(sections.join(case, sections.ORDER), case)
    assert "<img src=x>" not in html and "<b>$" not in html
    assert "Lines of the chart" not in html
    assert html.count("<img alt=") == 5  # learning curve, against production, value, decision curve, confusion


def test_the_chart_shows_what_matters_and_says_what_it_leaves_out() -> None:
    """The lines fall by millions where all positives are missed; the difference that matters is thousands."""
    case = valued()
    lines = value_curve.lines(case)
    assert [*lines] == ["candidate", "bad for all (today)", "good for all"]
    assert value_curve.lowest(lines, FOUND) == -160000 - (-71250 + 160000)
    assert value_curve.at(lines["candidate"], [0.0, 0.3, 0.5, 1.0]) == [-160500.0, -71250.0, -400000.0, -3000500.0]
    text = section(report.compose(case))
    assert "Lines of the chart: candidate in blue, bad for all (today) in orange. " in text
    assert "Amounts below -248,750 are drawn at the lower edge. Not drawn: good for all, -3,000,000." in text
    drawn = [json_numbers(line) for line in re.findall(r"line \[(.*)\]", text)]
    assert [min(line) for line in drawn] == [-248750, -160000]

    another = [point | {"today": -120000.0} for point in CURVE]
    production = ProductionValue(estimate(-90000), curve=[{"threshold": 0.0, "model": -90000.0}])
    case = replace(valued(), value_curve=another, production_value=production)
    assert [*value_curve.lines(case)] == ["candidate", "production", "bad for all", "good for all", "today"]
    flat = {"candidate": [(0.0, 5.0), (1.0, 5.0)]}
    assert value_curve.lowest(flat, {"model": {"value": 5.0}, "today": {"value": 5.0}}) == 5.0


def json_numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def test_other_tasks_have_the_table_and_no_curve() -> None:
    """Three classes, and numbers: nothing there has a threshold."""
    for task, answers, error in (
        ("multiclass", {name: dict.fromkeys("abc", 1.0) for name in "abc"}, None),
        ("regression", None, {"over": 1.0, "under": 3.0}),
    ):
        case = candidate(decision=None)
        metric = "macro_f1" if task == "multiclass" else "rmse"
        changed = {
            "data": {**SETTINGS["data"], "task": task},
            "gate": {"primary_metric": metric, "thresholds": {metric: 1.0}},
            "value": AMOUNTS | {"answers": answers, "error": error, "today": {"answer": "a" if answers else 7.0}},
        }
        case.settings = Settings.model_validate(SETTINGS | changed)
        case.metrics |= {"task": task, "value": FOUND}  # type: ignore[operator]
        case.metrics["metrics"] = dict.fromkeys(case.settings.better, FOUND["model"])  # type: ignore[index]
        text = section(report.compose(case))
        assert "88,750 EUR a month more" in text and "mermaid" not in text and "threshold" not in text
        assert "| production | not known | – | – |" in text


def write_plots() -> None:
    """Write the data of both pictures, as evaluate does."""
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 2, 300)
    positive = 1 / (1 + np.exp(-(3.0 * (2 * actual - 1) + rng.normal(size=300))))
    artifacts.PLOTS.mkdir(parents=True)
    pd.DataFrame(CURVE).to_csv(artifacts.PLOTS / "value.csv", index=False)
    curves.decision_curve(actual, positive).to_csv(artifacts.PLOTS / "decision_curve.csv", index=False)


@pytest.fixture
def axes() -> Any:
    figure = plt.figure(layout="constrained")
    yield figure.add_subplot()
    plt.close(figure)


def test_the_value_picture_marks_the_threshold_and_has_readable_amounts(axes: Any) -> None:
    case = valued(found=FOUND | {"unit": UNIT})
    value_plots.value_over_threshold(axes, pd.DataFrame(CURVE), case)
    (point,) = (line for line in axes.lines if line.get_marker() == "o")
    assert (*point.get_xdata(), *point.get_ydata()) == (0.3125, -71250)
    axes.figure.canvas.draw()
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert any("," in text for text in ticks) and not any("e" in text or "−" in text for text in ticks), ticks
    assert -300000 < axes.get_ylim()[0] < -248750 and axes.get_ylim()[1] > -71250
    (legend,) = axes.figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [
        "candidate",
        "bad for all (today)",
        "good for all: -3,000,000, further below",
        "chosen: from 0.312 on",
    ]
    assert axes.get_ylabel() == r"US\$ <b>\$ a month"


def test_the_decision_curve_marks_what_the_amounts_say(axes: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_plots()
    case = valued()
    value_plots.net_benefit(axes, pd.read_csv(artifacts.PLOTS / "decision_curve.csv"), case)
    named = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert named == ["bad for all", "good for all", "candidate", "by the amounts in value: 0.02"]
    assert -0.2 < axes.get_ylim()[0] < 0  # the line of "bad for all" falls to -98


def test_the_break_even_probability_is_where_both_answers_earn_the_same() -> None:
    value = valued().settings.value
    probability = value_plots.break_even(value, ["good", "bad"])
    assert value and probability is not None
    amounts = worth.matrix(value, ["good", "bad"])
    assert [1 - probability, probability] @ amounts[:, 0] == pytest.approx(
        [1 - probability, probability] @ amounts[:, 1]
    )
    assert value_plots.break_even(None, ["good", "bad"]) is None
    always = AMOUNTS | {"answers": {"bad": {"bad": 0, "good": -1}, "good": {"bad": 0, "good": -1}}}
    assert value_plots.break_even(Settings.model_validate(SETTINGS | {"value": always}).value, ["good", "bad"]) is None


def test_amounts_are_read_at_a_glance() -> None:
    assert [amount(value) for value in (12345.6, -0.2, 0.0, -0.0, 99.999, 1234.5, 0.01234)] == [
        *("12,346", "-0.2", "0", "0", "100", "1,234", "0.01234"),
    ]
    assert [signed(value) for value in (1500, -1500, 0)] == ["+1,500", "-1,500", "0"]


ROWS = 120
SAME = {"test_md5": "same", "value": FOUND}
PAIRED = {"mode": "paired", "differences": {"expected_value": estimate(20000)}}


def released(case: Context, **changes: Any) -> Deployed:
    """Return production's release with other contents of its record."""
    assert case.production
    return replace(case.production, record=case.production.record.model_copy(update=changes))


def recorded(case: Context, value: dict[str, Any] | None, **changes: Any) -> Deployed:
    """Return a release that was scored with the section `value`."""
    scores = {"expected_value": Score(**estimate(-80000))} if value else {}
    assert case.production
    params = case.production.record.params | {"value": value}
    return released(case, params=params, metrics=case.production.record.metrics | scores, **changes)


def test_productions_value_is_that_of_its_record_where_it_can_be_compared() -> None:
    case = valued()
    other_rule = AMOUNTS | {"today": {"answer": "good"}}  # what is done today does not change what the model is worth
    for value in (AMOUNTS, other_rule):
        found = production_value.find(case.settings, {}, SAME, None, recorded(case, value))
        assert found == ProductionValue({**estimate(-80000), "better": None})
    elsewhere = recorded(case, AMOUNTS, test_md5="other")
    gate = {"mode": "recorded", "differences": {"expected_value": estimate(8749.6)}}
    found = production_value.find(case.settings, {}, SAME, gate, elsewhere)
    assert found and found.basis == "on the test rows of its own run" and found.difference == estimate(8749.6)


def test_productions_value_by_other_amounts_is_not_taken_for_one_by_these() -> None:
    case = valued()
    dearer = AMOUNTS | {"running_cost": 501}
    gate = {"mode": "recorded", "differences": {}}
    for value, given, words in (
        (dearer, gate, "its record has other amounts, and the gate could not run it on today's test rows"),
        (None, gate, "it was released without the section value, and the gate could not run it on today's test rows"),
        (None, None, "it was released without the section value, and no gate has compared it on today's test rows"),
    ):
        production = recorded(case, value)
        found = production_value.find(case.settings, {}, SAME, given, production)
        assert found == ProductionValue(None, words)
        text = section(report.compose(replace(case, production=production, production_value=found)))
        assert "| production | not known | – | – |" in text and f"Production: {words}." in text
    absolute = {"mode": "absolute", "differences": {}}
    found = production_value.find(case.settings, {}, SAME, absolute, recorded(case, AMOUNTS))
    assert found == ProductionValue(None, "it is for another task")
    elsewhere = recorded(case, None, test_md5="other")
    found = production_value.find(case.settings, {}, SAME, PAIRED, elsewhere)
    assert found and found.score == {"value": pytest.approx(-91250.4), "low": None, "high": None}
    text = section(report.compose(replace(case, production_value=found)))
    assert "| production | -91,250 | – | +20,000 (19,000 to 21,000) 🟢 |" in text
    assert "Production: its model was run on today's test rows." in text
    assert production_value.find(case.settings, {}, SAME, PAIRED, None) is None


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_productions_value_is_measured_by_its_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Where its record lacks it and the rows are the same; they come in another order in its file."""
    monkeypatch.chdir(tmp_path)
    classes = {"binary": ["good", "bad"], "multiclass": ["a", "b", "c"], "regression": []}[task]
    rng = np.random.default_rng(0)
    actual = rng.integers(0, len(classes), ROWS) if classes else rng.normal(size=ROWS)
    guessed = np.where(rng.random(ROWS) < 0.8, actual, 0)
    texts = (lambda codes: np.array(classes, dtype=object)[codes]) if classes else (lambda values: values)
    test = pd.DataFrame({ROW: np.arange(ROWS) + 7, GROUP: np.arange(ROWS) // 2, "y": texts(actual)})
    artifacts.write_parquet(artifacts.TEST, test)
    table = pd.DataFrame({"row": test[ROW], "split": "test", "target": test["y"], "prediction": texts(guessed)})
    for index, name in enumerate(classes):
        table[f"p_{name}"] = np.where(guessed == index, 0.9, 0.1 / max(1, len(classes) - 1))
    table[::-1].to_parquet("predictions.parquet")
    monkeypatch.setattr(dvc, "fetch", {"d": Path("predictions.parquet")}.__getitem__)

    section_ = AMOUNTS | {"today": {"answer": classes[0] if classes else 0.0}}
    if task == "multiclass":
        section_["answers"] = {a: {b: float(a == b) for b in classes} for a in classes}
    if task == "regression":
        section_ |= {"answers": None, "error": {"over": 1.0, "under": 3.0}}
    metric = {"binary": "roc_auc", "multiclass": "macro_f1", "regression": "rmse"}[task]
    case = candidate()
    case.settings = Settings.model_validate(
        SETTINGS
        | {
            "value": section_,
            "data": {**SETTINGS["data"], "task": task},
            "gate": {"primary_metric": metric, "thresholds": {metric: 1.0}},
            "evaluate": {**SETTINGS["evaluate"], "bootstrap": 200},
        }
    )
    value, schema = case.settings.value, {"task": task, "target": {"name": "y", "classes": classes}}
    found = production_value.find(case.settings, schema, SAME, PAIRED, recorded(case, None))
    assert value and found and found.score and found.difference == estimate(20000) and found.basis == ""
    expected = worth.monthly(value, worth.of_rows(value, actual, guessed, classes).mean())
    assert found.score["value"] == pytest.approx(expected)
    assert found.score["low"] < expected < found.score["high"]
    assert bool(found.curve) == (task == "binary")
    if found.curve:
        at_half = [point["model"] for point in found.curve if point["threshold"] == 0.5]
        assert at_half == [pytest.approx(expected)]
    table[5:].to_parquet("predictions.parquet")  # of other rows
    less = production_value.find(case.settings, schema, SAME, PAIRED, recorded(case, None))
    assert less and less.score and less.score["low"] is None and less.curve == []


def test_gathered_are_the_curve_and_productions_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plots()
    monkeypatch.setattr("gitops.releases.release.production", lambda: None)
    monkeypatch.setattr("gitops.integrations.git.run", lambda *arguments: "a" * 40)
    artifacts.write_json(artifacts.SCHEMA, {"task": "binary"})
    settings = valued().settings
    for metrics, expected in (({"value": FOUND}, CURVE), ({"task": "binary"}, [])):
        artifacts.write_json(artifacts.METRICS, metrics)
        assert context.gather(settings, ["train", "validate_model"]).value_curve == expected
    artifacts.write_json(artifacts.METRICS, {"value": FOUND})
    assert context.gather(settings, ["train", "evaluate"]).value_curve == []
