"""The result of `make monitor` for a log, labels and a release; Deepchecks runs in the validate environment."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from gitops.core import artifacts, params, sections
from gitops.core.artifacts import ProjectError
from gitops.monitoring import monitor, performance, report
from gitops.releases import release
from matplotlib.figure import Figure
from monitoring import SCHEMA, VERSION, World, failed, settings

PYTHON = ROOT / ".venv/validate/bin/python"
WITH_DEEPCHECKS = monitor.run_drift_checks

#: Prints every sample of a text for Prometheus, which must be well-formed.
PARSE = """
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print(*family.samples, sep="\\n")
"""


def test_drift_is_reported_and_offsets_are_stored(world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With Deepchecks, all the way: result, page, metrics, the step's outputs, state, exit status."""
    monkeypatch.setattr(monitor, "run_drift_checks", WITH_DEEPCHECKS)
    monkeypatch.setattr(monitor, "PYTHON", PYTHON)
    monkeypatch.setenv("GITHUB_OUTPUT", "output.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    lines = world.lines(200, label=True)
    for line in lines:
        line["inputs"]["income"] += 1.5
    lines[0]["inputs"]["joined"] = None
    for line in lines[:40]:
        line["inputs"]["prediction"] = 'gold "+"'
    world.log(lines)
    world.label()
    status, result = world.run()
    assert (status, result["status"], result["rows"], result["release"]) == (3, "drift", 200, "e" * 40)
    assert failed(result) >= {("feature drift", "income"), ("unseen categories", "prediction")}
    assert {column for _, column in failed(result)} == {"income", "prediction"}
    assert {check["check"] for check in result["checks"]} >= {"prediction drift", "label drift", "missing values"}
    assert result["performance"]["passed"] is True
    assert "feature drift: income" in capsys.readouterr().out
    assert "status<<" in Path("output.txt").read_text() and "\ndrift\n" in Path("output.txt").read_text()
    assert "Drift" in Path("summary.md").read_text()
    page = artifacts.MONITOR_HTML.read_text()
    assert page.index("feature drift:</strong> Was something changed") < page.index("<details>")
    assert page.count("data:image/png") == 3  # the predictions, income, prediction
    assert "http" not in page
    assert world.offsets() == {"a.jsonl": Path("requests/a.jsonl").stat().st_size}
    text = artifacts.MONITOR_METRICS.read_text()
    parsed = subprocess.run([PYTHON, "-c", PARSE], input=text, capture_output=True, text=True, check=True).stdout
    assert f"name='model_monitor_status', labels={{'model': 'toy', 'version': '{VERSION}'}}, value=1," in parsed
    assert "name='model_monitor_last_run_timestamp_seconds'" in parsed
    assert "'column': 'income'}, value=0." in parsed


@pytest.fixture(scope="module")
def simulated() -> Any:
    """Two hundred windows without drift, and one with each drift, compared with one reference."""
    command = [PYTHON, Path(__file__).with_name("monitor_simulation.py"), "--windows=200"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    (result,) = json.loads(done.stdout)
    return result


def test_windows_without_drift_raise_no_alarm(simulated: Any) -> None:
    """FALSE_ALARM is one in a thousand, on average over references; one that is unusual may raise more."""
    assert simulated["windows"] == 200
    assert simulated["alarms"] <= 2, simulated["false"]


def test_injected_drifts_are_named_and_others_are_not(simulated: Any) -> None:
    assert len(simulated["injected"]) == 10
    for name, (check, column) in simulated["injected"].items():
        found = simulated["found"][name]
        assert found[f"{check}: {column}"] == 1, (name, found)
        if column and name != "every column missing":  # other columns change together with the labels
            assert {failure.partition(": ")[2] for failure in found} == {column}, (name, found)
    assert "unseen categories: outcome" in simulated["found"]["labels spelt otherwise"]


def test_refused_requests_name_the_column(world: World) -> None:
    """Also where there are no other requests: too few rows are kept for the next run, whatever else was found."""
    world.log(world.refused(60, "income"))
    status, result = world.run()
    assert (status, result["status"], result["rows"], result["refused"]) == (0, "invalid_requests", 0, 60)
    assert failed(result) == {("refused requests", "income")}
    world.log([*world.lines(98), *world.refused(2, "income")])
    assert world.run()[1]["refused"] == 62
    world.log([*world.lines(98), *world.refused(2, "income")])
    assert world.run()[1]["status"] == "ok"


def test_what_strangers_send_is_no_drift(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused requests or unreadable lines: people are told, and the run is green, so that no retraining starts."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", "output.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    hostile = "\n::error::100%0A ##[group]"
    for made, end, told in (
        (world.refused(30, hostile), "", "refused requests: : :error::100%250A ## [group]"),
        ([], "}\n" * 30, "unreadable lines"),
    ):
        world.log([*world.lines(60), *made], end=end)
        status, result = world.run()
        assert (status, result["status"]) == (0, "invalid_requests")
        said = capsys.readouterr().out
        assert [line for line in said.splitlines() if line.lstrip().startswith("::") or "##[" in line] == [
            line
            for line in said.splitlines()
            if line.startswith(f"::warning title=Monitor::🚫 Invalid requests: {told} ")
        ]
        assert said.count("::warning") == 1
        assert "\ninvalid_requests\n" in Path("output.txt").read_text()
        assert "Invalid requests" in Path("summary.md").read_text()
        assert f'model_monitor_status{{model="toy",version="{VERSION}"}} 3' in artifacts.MONITOR_METRICS.read_text()
        assert "No retraining" in artifacts.MONITOR_HTML.read_text()
        assert world.offsets() == {"a.jsonl": Path("requests/a.jsonl").stat().st_size}


@pytest.mark.parametrize("why", ["drift", "performance"])
def test_drift_counts_more_than_what_strangers_send(world: World, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    drift = {"check": "feature drift", "column": "income", "value": 0.9, "limit": 0.2, "passed": False, "details": ""}
    found = {"checks": [drift] if why == "drift" else [], "notes": []}
    monkeypatch.setattr(monitor, "run_drift_checks", lambda: artifacts.write_json(artifacts.MONITOR_CHECKS, found))
    measured = {"passed": why == "drift", "reason": "r", "limit": 0.1}
    monkeypatch.setattr(performance, "evaluate", lambda *_: measured)
    world.log([*world.lines(60), *world.refused(60, "income")])
    status, result = world.run()
    assert (status, result["status"]) == (3, "drift")
    assert ("refused requests", "income") in failed(result)


def test_refused_requests_are_a_fraction_of_requests_and_not_of_ids(world: World) -> None:
    """An id that a client sends always, a request of several instances, and one whose first line cannot be read."""
    again = [line | {"request_id": "same"} for line in world.lines(90)]
    several = [line | {"request_id": "several", "instance": index} for index, line in enumerate(world.lines(5))]
    torn = [line | {"request_id": "torn", "instance": index} for index, line in enumerate(world.lines(3))]
    world.log([*again, *several, *torn[1:], *world.refused(4, "income")], end=json.dumps(torn[0])[:40] + "\n")
    status, result = world.run()
    (check,) = [check for check in result["checks"] if check["check"] == "refused requests"]
    assert (status, result["status"], check["details"]) == (0, "ok", "4 of 96: income (4)")


def test_labels_are_joined_by_request_and_instance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that arrive after their rows were evaluated count too."""
    lines = world.lines(120)
    for number, line in enumerate(lines):  # two rows a request
        line |= {"request_id": f"two-{number // 2}", "instance": number % 2}
    world.log(lines)
    assert world.run()[1]["performance"] is None
    labels = pd.DataFrame(
        {
            "request_id": [line["request_id"] for line in lines],
            "instance": [line["instance"] for line in lines],
            "label": [line["prediction"]["label"] for line in lines],
        }
    )
    Path("labels").mkdir()
    pd.concat([labels, labels[:5].assign(request_id="unknown")]).to_parquet("labels/a.parquet")
    performance = world.run()[1]["performance"]
    assert (performance["rows"], performance["value"], performance["passed"]) == (120, 1.0, True)
    wrong = labels["label"].map({"yes": "no", "no": "yes"})
    labels.assign(label=wrong).to_csv("labels/b.csv", index=False)  # a later file corrects an earlier one
    status, result = world.run()
    assert status == 3 and result["performance"]["value"] == 0.0
    assert result["performance"]["passed"] is False and result["performance"]["drop"] > 0.9
    settings(skip=["performance"])
    status, result = world.run()
    assert status == 0 and result["performance"] is None and "performance" in " ".join(result["notes"])


def test_few_labels_are_not_evaluated(world: World) -> None:
    world.log(world.lines(60, label=True))
    world.labels = [*world.labels[:10], "r11,perhaps"]
    world.label()
    performance = world.run()[1]["performance"]
    assert performance["passed"] is None and performance["rows"] == 9 and "50 are needed" in performance["reason"]
    Path("labels/b.csv").write_text("id,label\n1,yes\n")
    with pytest.raises(ProjectError, match=r"b\.csv have no column request_id"):
        monitor.main()


def test_performance_of_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a lower error is better, and chance alone is no alarm."""
    rng = np.random.default_rng(0)
    context = {"schema": SCHEMA | {"task": "regression", "target": {"name": "y", "classes": []}}, "metric": "rmse"}
    context["recorded"] = {"value": 1.0}
    old = pd.DataFrame({"target": rng.normal(size=200), "prediction": 0.0})
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, old)
    for spread, passed in ((1.05, True), (1.6, False), (0.5, True)):
        new = pd.DataFrame({"target": spread * rng.normal(size=200), "prediction": 0.0})
        artifacts.write_parquet(artifacts.MONITOR_LABELLED, new)
        measured = performance.evaluate(params.load(), context)
        assert measured is not None and measured["passed"] is passed, spread
        assert measured["low"] < measured["value"] < measured["high"]


def test_test_rows_of_a_group_count_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop that 2,000 rows would prove is none where they are of 20 groups."""
    rng = np.random.default_rng(0)
    context = {"schema": SCHEMA | {"task": "regression", "target": {"name": "y", "classes": []}}, "metric": "rmse"}
    context["recorded"] = {"value": 1.0}
    artifacts.write_parquet(
        artifacts.MONITOR_LABELLED, pd.DataFrame({"target": 1.2 * rng.normal(size=2000), "prediction": 0.0})
    )
    groups = np.repeat(np.arange(20), 100)
    old = pd.DataFrame({"target": rng.normal(size=20)[groups], "prediction": 0.0})
    for table, passed in ((old, False), (old.assign(**{artifacts.GROUP: groups}), True)):
        artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, table)
        measured = performance.evaluate(params.load(), context)
        assert measured is not None and measured["passed"] is passed


def test_labelled_rows_of_an_id_are_a_group(world: World) -> None:
    """An id that was not given, or is redacted, is nobody's: such a row is a group by itself."""
    with zipfile.ZipFile("toy.mar", "w") as archive:
        archive.writestr("schema.json", json.dumps(SCHEMA | {"id": "person"}))
    lines = world.lines(6, label=True)
    for line, person in zip(lines, ("ada", "ada", None, "redacted", 7, "7"), strict=True):
        line["inputs"] |= {"person": person} if person is not None else {}
    for form in (
        lines,
        [line | {"more": 1} for line in lines],
    ):  # that of the server, and one that is checked by itself
        Path("requests/a.jsonl").unlink(missing_ok=True)
        world.log(form)
        world.label()
        world.run()
        groups = artifacts.read_parquet(artifacts.MONITOR_LABELLED)[artifacts.GROUP].tolist()
        assert groups[0] == groups[1] and groups[4] == groups[5] and len(set(groups)) == 4


def test_the_reference_holds_the_groups_of_the_test_rows(world: World) -> None:
    world.log(world.lines(60))
    world.run()
    assert artifacts.GROUP not in pd.read_parquet(
        artifacts.MONITOR_REFERENCE_OUTPUTS
    )  # a release of an earlier version
    test = pd.read_parquet("test.parquet")
    test.assign(**{artifacts.GROUP: np.arange(len(test)) // 2}).to_parquet("test.parquet")
    world.run()
    written = pd.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS)
    assert written[artifacts.GROUP].tolist() == [*(np.arange(len(test)) // 2)]


@pytest.mark.parametrize(("threshold", "value"), [(0.5, 2 / 3), (0.2, 1.0)])
def test_the_label_that_was_answered_is_scored(world: World, threshold: float, value: float) -> None:
    """By the threshold that the released model had, and by no other."""
    p = np.tile([0.1, 0.3], 100)
    rows = pd.DataFrame({"p_no": 1 - p, "p_yes": p, "target": np.where(p > 0.2, "yes", "no")})
    rows["prediction"] = np.where(p >= threshold, "yes", "no")
    for path in (artifacts.MONITOR_REFERENCE_OUTPUTS, artifacts.MONITOR_LABELLED):
        artifacts.write_parquet(path, rows)
    measured = performance.evaluate(params.load(), {"schema": SCHEMA, "metric": "f1", "recorded": {"value": 1.0}})
    assert measured is not None and measured["value"] == pytest.approx(value)


@pytest.mark.parametrize(("known", "passed"), [(True, False), (False, None)])
def test_the_value_is_that_of_todays_amounts(world: World, known: bool, passed: bool | None) -> None:
    """Whatever the release recorded. Where nobody says any more what answers are worth, it is not judged."""
    value = {"unit": "EUR", "decisions": 400, "running_cost": 0, "error": None, "today": {"answer": "no"}}
    value["answers"] = {"yes": {"yes": 10, "no": -90}, "no": {"yes": -10, "no": 0}}
    settings = yaml.safe_load(artifacts.PARAMS.read_text()) | {"value": value if known else None}
    settings["monitor"] = settings.get("monitor", {}) | {"max_performance_drop": 5000}
    artifacts.PARAMS.write_text(yaml.safe_dump(settings))
    p = np.tile([0.1, 0.3], 100)
    old = pd.DataFrame({"p_no": 1 - p, "p_yes": p, "target": np.where(p > 0.2, "yes", "no")})
    old["prediction"] = old["target"]
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, old)
    artifacts.write_parquet(artifacts.MONITOR_LABELLED, old.assign(prediction="no"))
    context = {"schema": SCHEMA, "metric": "expected_value", "recorded": {"value": -1e9}}
    measured = performance.evaluate(params.load(), context)
    assert measured is not None and measured["passed"] is passed
    if known:
        assert (measured["recorded"], measured["value"], measured["drop"]) == (2000, -18_000, 20_000)
        assert measured["reason"].startswith("expected_value (EUR a month) is -18,000 (")
    else:
        assert "expected_value is the release's primary metric" in measured["reason"]


def test_performance_that_fell_comes_first(world: World) -> None:
    """The page says by how much, what the limit is and what to do."""
    world.log(world.lines(100, label=True))
    turned = {"yes": "no", "no": "yes"}
    world.labels[1:] = [f"{line.split(',')[0]},{turned[line.split(',')[1]]}" for line in world.labels[1:]]
    world.label()
    assert world.run()[0] == 3
    page = artifacts.MONITOR_HTML.read_text()
    assert "0.95 on the test rows; it may be worse by 0.05 (<code>monitor.max_performance_drop</code>)" in page
    assert page.index("performance:</strong> Are the labels correct") < page.index("data:image/png")


def test_each_alarm_is_in_the_manual() -> None:
    """By its name: the monitor's in its page and in docs/operate.md, Prometheus' there."""
    headings = re.findall(r"^\*\*(.+?)\.\*\*", (ROOT / "docs/operate.md").read_text(), re.MULTILINE)
    manual = {name.casefold() for heading in headings for name in heading.split(", ")}
    alerts = re.findall(r"alert: (\w+)", (ROOT / "k8s/components/monitoring/prometheusrule.yaml").read_text())
    assert len(alerts) > 5
    checks = sections.MONITOR_CHECKS
    assert {name.casefold() for name in [*checks, *alerts, "the monitor failed"]} - manual == set()
    assert {*report.ADVICE} == {*checks}


def test_each_check_names_the_setting_that_holds_its_limit() -> None:
    """And a limit of `monitor` belongs to a check."""
    limits = {name for name in sections.Monitor.model_fields if name.startswith("max_")}
    assert {*sections.MONITOR_CHECKS.values()} == limits
    check = {"check": "missing values", "column": "age", "value": 0.2, "limit": 0.1, "passed": False, "details": ""}
    assert "| 20.0% | 10.0% | `monitor.max_missing` |" in report._checks([check])


def drawn(draw: Any, new: list[Any], old: list[Any]) -> Any:
    """Return the axes that a drawing function of report.py has drawn on."""
    figure = Figure()
    axes = figure.subplots()
    draw(axes, new=pd.Series(new), old=pd.Series(old))
    figure.canvas.draw()
    return axes


def test_plots_are_legible() -> None:
    """An outlier does not squeeze the other bars, missing values are counted, and dates are dates."""
    usual = [*np.linspace(0, 1, 300)]
    assert drawn(report._histogram, [*usual, 1e12], usual).get_xlim()[1] < 2
    axes = drawn(report._histogram, [*usual, *[None] * 100], usual)
    assert axes.get_xlabel() == "missing: 25.0% of the requests, 0.0% of the test rows"
    assert drawn(report._histogram, [np.nan] * 3, [np.nan]).get_xlabel().startswith("missing: 100.0%")
    times = [datetime(2024, month, 1, tzinfo=UTC).timestamp() for month in range(1, 13)]
    axes = drawn(report._dates, times, times)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels and all(label.startswith("2024-") for label in labels), labels


def test_redacted_columns_are_skipped_and_noted(world: World) -> None:
    """A category is redacted only where the release says so; in the other column the text cannot be a number."""
    world.log(world.lines(60, prediction="redacted", income="redacted"))
    status, result = world.run()
    assert status == 0 and result["rows"] == 60
    assert json.loads(artifacts.MONITOR_CONTEXT.read_text())["redacted"] == ["income", "prediction"]
    assert "income is redacted in the log: not checked" in result["notes"]


def test_id_and_time_of_requests_are_no_columns_to_check(world: World) -> None:
    """They may be redacted, or what a request of another client sent."""
    with zipfile.ZipFile("toy.mar", "w") as archive:
        archive.writestr("schema.json", json.dumps(SCHEMA | {"id": "customer", "timestamp": "seen"}))
    world.log(world.lines(30, customer="redacted", seen="redacted"))
    world.log(world.lines(30, customer="7", seen="2026-01-31T12:00:00Z"))
    status, result = world.run()
    assert status == 0 and result["rows"] == 60
    assert not {"customer", "seen"} & {check["column"] for check in result["checks"]}


def test_a_release_of_an_earlier_version_calls_the_rows_otherwise(world: World) -> None:
    test = pd.read_parquet("test.parquet")
    test.rename(columns={artifacts.ROW: "row"}).to_parquet("test.parquet")
    world.log(world.lines(60))
    status, result = world.run()
    assert status == 0 and result["rows"] == 60


def test_no_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "production", lambda: None)
    with pytest.raises(ProjectError, match="nothing is released"):
        monitor.main()


def test_failure_leaves_no_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that do not run are a failure, and the next run evaluates the requests."""
    world.log(world.lines(60))
    world.run()
    world.log(world.lines(60))
    before = world.offsets()
    monkeypatch.setattr(monitor, "run_drift_checks", WITH_DEEPCHECKS)
    with pytest.raises(ProjectError, match="make setup"):
        monitor.main()
    monkeypatch.setattr(monitor, "PYTHON", Path("/bin/false"))
    with pytest.raises(ProjectError, match="this window was not evaluated"):
        monitor.main()
    assert not artifacts.MONITOR.exists() and world.offsets() == before


def test_skip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(skip=["refused requests"])
    world.log([*world.lines(60), *world.refused(60, "income")])
    assert world.run()[1]["status"] == "ok"
    settings(skip=["feature drifts: income"])
    with pytest.raises(ProjectError, match="'feature drifts: income', which is not a check"):
        params.load()


def test_metrics_lie_beside_the_log_after_every_run(world: World) -> None:
    """Also where the rows were too few: Prometheus is to know that the monitor runs."""
    world.log(world.lines(3))
    assert world.run()[1]["status"] == "too_small"
    served = Path("requests/monitor.prom")
    assert served.read_text() == artifacts.MONITOR_METRICS.read_text()
    assert 'model_monitor_status{model="toy",version="aaaaaaaaaaaa"} 2' in served.read_text()
    world.log(world.lines(60))
    assert world.run()[0] == 0
    assert 'model_monitor_status{model="toy",version="aaaaaaaaaaaa"} 0' in served.read_text()


def test_metrics_that_cannot_be_written_leave_the_log_unread(world: World) -> None:
    """The next run evaluates the same requests, and writes them then."""
    world.log(world.lines(60))
    Path("requests/monitor.prom").mkdir()
    with pytest.raises(ProjectError, match="REQUEST_LOG is 'requests'"):
        monitor.main()
    assert not world.state.exists()
    Path("requests/monitor.prom").rmdir()
    assert world.run()[1]["rows"] == 60
    assert world.state.exists()
