"""What `make monitor` says of value: the last month by the labels so far, beside what was promised and today's way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import SETTINGS
from gitops.core import artifacts, params
from gitops.monitoring import worth, worth_report
from gitops.serving.server import drift_metrics
from matplotlib.figure import Figure
from monitoring import SCHEMA, World
from monitoring import settings as without

AMOUNTS: dict[str, Any] = {
    "unit": 'EUR "x"\\',
    "decisions": 1000,
    "running_cost": 50,
    "answers": {"yes": {"yes": 10, "no": -5}, "no": {"yes": -1, "no": 0}},
    "error": None,
    "today": {"answer": "yes"},
}

RULE = {"column": "income", "at_least": 0.0, "answer": "yes", "otherwise": "no"}


def settings(min_rows: int = 50, redact: list[str] | None = None, **value: Any) -> None:
    changed = {"monitor": {"min_rows": min_rows}, "value": AMOUNTS | value}
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS | changed))


def earned(actual: Any, answered: Any) -> float:
    """Return what such answers earn a month, without the cost of running the model."""
    rows = zip(actual, answered, strict=True)
    return 1000 * float(np.mean([AMOUNTS["answers"][real][answer] for real, answer in rows]))


def labelled(world: World, rows: int = 120) -> tuple[list[Any], list[str], list[str]]:
    """Log labelled requests; return the lines, their labels and what was answered."""
    lines = world.lines(rows, label=True)
    world.log(lines)
    world.label()
    return (
        lines,
        [text.partition(",")[2] for text in world.labels[-rows:]],
        [line["prediction"]["label"] for line in lines],
    )


def test_the_month_stands_beside_the_promise_and_todays_way(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    settings()
    _, actual, answered = labelled(world)
    status, result = world.run()
    value = result["value"]
    assert status == 0 and {*actual} == {"yes", "no"}
    assert {name: value[name] for name in ("unit", "decisions", "running_cost", "rows", "days", "reason")} == {
        **{name: AMOUNTS[name] for name in ("unit", "decisions", "running_cost")},
        **{"rows": 120, "days": 30, "reason": None},
    }
    reference = pd.read_parquet("predictions.parquet")
    model, today = earned(actual, answered) - 50, earned(actual, ["yes"] * 120)
    assert value["model"]["value"] == pytest.approx(model)
    assert value["promised"]["value"] == pytest.approx(earned(reference["target"], reference["prediction"]) - 50)
    assert value["today"]["name"] == "yes for all" and value["today"]["value"] == pytest.approx(today)
    assert value["gain"]["value"] == pytest.approx(model - today)
    for name in ("model", "promised", "today", "gain"):
        assert value[name]["low"] < value[name]["value"] < value[name]["high"]
    summary = Path("summary.md").read_text()
    assert f'Value: as answered, **{model:,.0f} EUR "x"\\\\ a month** (' in summary
    assert "by 120 labelled rows of the last 30 days." in summary and "Today's way is not" not in summary
    assert "| promised by the release, on its test rows | " in summary
    assert "| today's way, yes for all, on the labelled rows | " in summary
    page = artifacts.MONITOR_HTML.read_text()
    assert "promised by the release" in page and page.count("data:image/png") == 2  # the value, the predictions
    capsys.readouterr()


def test_the_gauges_are_those_that_the_cluster_serves(world: World) -> None:
    settings()
    labelled(world)
    value = world.run()[1]["value"]
    text = drift_metrics.checked(artifacts.MONITOR_METRICS.read_bytes())
    about = 'model="toy",version="aaaaaaaaaaaa"'
    for name, bound in (("value", "value"), ("value_low", "low"), ("value_high", "high")):
        for key in ("model", "promised", "today"):
            line = f'model_monitor_{name}{{{about},of="{key}",unit="EUR \\"x\\"\\\\"}} {value[key][bound]!r}'
            assert line in text.splitlines()
    assert f"model_monitor_value_rows{{{about}}} 120" in text.splitlines()


def test_without_amounts_or_labels_nothing_is_said(world: World) -> None:
    """Byte for byte: what is written differs in nothing but the time of the run."""
    labelled(world)
    without()
    world.run()
    files = artifacts.MONITOR, artifacts.MONITOR_HTML, artifacts.MONITOR_METRICS
    before = [stripped(path) for path in files]
    result = json.loads(before[0])
    assert [*result][-2:] == ["performance", "notes"] and "alue:" not in before[1] and "_value" not in before[2]
    world.state.unlink()
    settings()
    world.run()
    assert "model_monitor_value" in artifacts.MONITOR_METRICS.read_text()
    for path in Path("labels").iterdir():
        path.unlink()
    unlabelled = world.run()[1]
    assert "value" not in unlabelled and "model_monitor_value" not in artifacts.MONITOR_METRICS.read_text()


def stripped(path: Path) -> str:
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("model_monitor_last_run"))


def test_too_few_labels_are_said_and_not_computed(world: World) -> None:
    settings(min_rows=130)
    labelled(world)
    value = world.run()[1]["value"]
    assert value["rows"] == 120 and value["reason"] == "120 labelled rows, and 130 are needed"
    assert {value[name] for name in ("model", "promised", "today", "gain")} == {None}
    text = artifacts.MONITOR_METRICS.read_text()
    assert "model_monitor_value_rows{" in text and "model_monitor_value{" not in text
    assert "⏳ Value: 120 labelled rows, and 130 are needed" in artifacts.MONITOR_HTML.read_text()


def test_a_rule_decides_by_the_column_in_the_log(world: World) -> None:
    """Also for rows that were evaluated before, and for lines of another form than the server's."""
    settings(today=RULE)
    lines, actual, _ = labelled(world)
    expected = earned(actual, ["yes" if line["inputs"]["income"] >= 0 else "no" for line in lines])
    assert expected != earned(actual, ["no"] * 120)
    for _ in range(2):
        today = world.run()[1]["value"]["today"]
        assert today["name"] == "yes where income is at least 0, else no"
        assert today["value"] == pytest.approx(expected)
    Path("requests/a.jsonl").unlink()
    world.state.unlink()
    world.log([line | {"more": 1} for line in lines])
    for _ in range(2):
        assert world.run()[1]["value"]["today"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize("column", ["prediction", "elsewhere", "income"])
def test_a_rule_whose_column_the_log_lacks_is_said(world: World, column: str) -> None:
    """The release redacts the first, requests do not give the second, and the third is redacted in the lines."""
    settings(today=RULE | {"column": column})
    lines = world.lines(120, label=True, **({"income": "redacted"} if column == "income" else {}))
    world.log(lines)
    world.label()
    for _ in range(2 if column == "prediction" else 1):
        value = world.run()[1]["value"]
        assert value["model"] and value["today"] is None and value["gain"] is None
        assert value["reason"] == f"today's way decides by {column!r}, which is not in the log"
        assert f"Today's way is not known: today's way decides by '{column}'" in artifacts.MONITOR_HTML.read_text()
        assert 'of="today"' not in artifacts.MONITOR_METRICS.read_text()


def test_amounts_for_other_classes_than_the_releases_are_said(world: World) -> None:
    """The release is older than the amounts; drift is monitored all the same."""
    renamed = {"ja": {"ja": 1, "nein": 0}, "nein": {"ja": 0, "nein": 0}}
    settings(answers=renamed, today={"answer": "ja"})
    labelled(world)
    status, result = world.run()
    assert status == 0 and result["value"]["model"] is None
    assert "value.answers is for ja, nein, and the target's classes are yes, no" in result["value"]["reason"]


def written(task: str, classes: list[str], rows: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """Write labelled rows and reference outputs of a task; return the monitor's context and the labelled rows."""
    rng = np.random.default_rng(0)
    texts = np.array(classes, dtype=object)
    for path in (artifacts.MONITOR_REFERENCE_OUTPUTS, artifacts.MONITOR_LABELLED):
        actual = rng.integers(0, len(classes), rows) if classes else rng.normal(size=rows)
        guess = np.where(rng.random(rows) < 0.8, actual, 0) if classes else actual + 0.1 * rng.normal(size=rows)
        table = pd.DataFrame({"target": texts[actual] if classes else actual})
        table["prediction"] = texts[guess] if classes else guess
        for index, name in enumerate(classes):
            table[f"p_{name}"] = (guess == index) * 1.0
        table["rule"] = 0.5
        artifacts.write_parquet(path, table)
    schema = SCHEMA | {"task": task, "target": {"name": "y", "classes": classes}}
    return {"schema": schema}, table


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_have_a_value_too(world: World, task: str) -> None:
    classes = ["a", "b", "c"] if task == "multiclass" else []
    metric = "macro_f1" if classes else "rmse"
    value = AMOUNTS | {"today": {"answer": "a"}, "answers": {a: {b: float(a == b) for b in classes} for a in classes}}
    if not classes:
        value |= {"answers": None, "error": {"over": 1.0, "under": 3.0}, "today": {"column": "income"}}
    changed = {
        "data": SETTINGS["data"] | {"task": task},
        "gate": {"primary_metric": metric, "thresholds": {metric: 1.0}},
        "value": value,
    }
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS | changed))
    context, rows = written(task, classes, 200)
    found = worth.evaluate(params.load(), context)
    assert found and found["reason"] is None
    if classes:
        model = float((rows["target"] == rows["prediction"]).mean())
        today = float((rows["target"] == "a").mean())
    else:
        model, today = (
            float(np.where(error > 0, -error, 3 * error).mean())
            for error in (rows["prediction"] - rows["target"], 0.5 - rows["target"])
        )
    assert found["model"]["value"] == pytest.approx(1000 * model - 50)
    assert found["today"]["value"] == pytest.approx(1000 * today)
    assert found["gain"]["low"] > 0
    assert (
        found["promised"]["low"]
        < found["promised"]["value"]
        < found["promised"]["high"]
        < found["model"]["value"] + 400
    )
    assert "🟢 That is **" in worth_report.markdown(found)


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 100, "high": value + 100}


def test_less_than_promised_is_said_where_it_is_sure() -> None:
    found: dict[str, Any] = {name: AMOUNTS[name] for name in ("unit", "decisions", "running_cost")}
    found |= {"rows": 99, "days": 7, "reason": None, "model": estimate(1000), "gain": estimate(-500)}
    found |= {"today": {"name": "<b>all", **estimate(1500)}, "promised": estimate(1300)}
    text = worth_report.markdown(found)
    assert "It is less than the release promised" in text and "🔴 That is **500 " in text and "less** than" in text
    assert "<b>" not in text
    assert "than the release promised" not in worth_report.markdown(found | {"promised": estimate(1150)})


def test_the_picture_is_legible() -> None:
    found = {"unit": "$ or $", "model": estimate(12345), "promised": estimate(13000), "today": None}
    figure = Figure()
    axes = figure.subplots()
    ((_, draw),) = worth_report.plots(found)
    draw(axes)
    figure.canvas.draw()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["promised", "as answered"]
    assert all("," in tick.get_text() for tick in axes.get_xticklabels())
    assert [text.get_text() for text in axes.texts] == ["13,000", "12,345"]
    assert worth_report.plots(None) == [] == worth_report.plots({"model": None})
