"""The report: what it says, what it leaves out, and that no text from data can break or abuse it."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from breast_cancer.settings import Settings
from conftest import SETTINGS
from gitops.core import artifacts, params
from gitops.integrations import dvc
from gitops.releases.record import Deployed, Release
from gitops.rendering import markdown
from gitops.reporting import context, page, report, sections
from gitops.reporting.context import Context

#: Text as an attacker would put it into a column's name.
HOSTILE = "x|y`\n<!-- hidden --><img src=x> @everyone #1 [click](https://evil.example) **bold** \\"


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


#: What the schema of the candidate counts; the release's was of a version that knew less reasons.
ROWS = {"raw": 12, "dropped_missing_target": 0, "dropped_duplicates": 2, "dropped_repeated_ids": 0}


def candidate(**changes: Any) -> Context:
    """The context of a candidate that is better than production and was accepted."""
    settings = Settings.model_validate(SETTINGS)
    names = Settings.metrics["binary"]
    record = Release.model_validate(
        {
            "commit": "c" * 40,
            "model": {"name": "m", "version": "v", "sha256": "s", "md5": "d"},
            "package": {"path": "p", "md5": "d"},
            "predictions": {"path": "p", "md5": "d"},
            "test_md5": "same",
            "data": {"path": "data/raw.csv", "md5": "0" * 32},
            "params": settings.model_dump(mode="json") | {"train": {"epochs": 7}},
            "metrics": {name: score(0.5) for name in names},
            "rows": {"raw": 10, "dropped_repeated_ids": 3},
            "columns": {"gone": "number"},
            "gate": {"accepted": True, "mode": "absolute", "reason": ""},
            "threshold": 0.5,
            "mlflow_run_id": None,
            "image": "i",
            "previous": None,
        }
    )
    given: dict[str, Any] = {
        "production": Deployed("e" * 40, record),
        "schema": {"rows": ROWS, "features": [{"name": HOSTILE, "dtype": "category"}]},
        "metrics": {
            "task": "binary",
            "rows": 100,
            "groups": 100,
            "test_md5": "same",
            "model_sha256": "s",
            "metrics": {name: score(0.75) for name in names},
            "confusion": {"classes": ["no", HOSTILE], "counts": [[50, 1], [2, 47]]},
            "calibration": {"temperature": 1.25, "error_before": 0.04, "error_after": 0.02},
            "slices": {HOSTILE: {HOSTILE: {"rows": 3, "metrics": None}}},
        },
        "decision": {"threshold": 0.3125, "metric": "f1", "value": 0.875},
        "gate": {
            "accepted": True,
            "reason": "Accepted: better.",
            "mode": "paired",
            "model_sha256": "s",
            "decision": "proved_worse",
            "metric": "roc_auc",
            "rules": [],
            "releases": [],
            "left_out": {},
            "best": None,
            "differences": {
                "roc_auc": {"value": 0.25, "low": 0.2, "high": 0.3},
                "brier": {"value": -0.25, "low": -0.5, "high": 0.1},
            },
        },
        "validations": {"data": {"passed": True, "conditions": [], "not_run": []}},
        "curve": [{"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1 / epoch + 0.1} for epoch in range(1, 200)],
        "deployment": "-image: old\n+image: new",
        "commit": "a" * 40,
        **changes,
    }
    return Context(settings, given.pop("stale", []), **given)


@pytest.fixture(autouse=True)
def data_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitops.core.artifacts.tracked_md5", lambda path: "1" * 32)


def test_a_validation_of_a_sample_says_so() -> None:
    conditions = [
        {"check": check, "condition": "c", "status": "passed", "details": "", "setting": "", "all_rows": exact}
        for check, exact in (("Data Duplicates", True), ("Feature Drift", False))
    ]
    result = {"passed": True, "conditions": conditions, "not_run": [], "sample": "on a sample, 80 of 343 train rows"}
    text = report.compose(candidate(validations={"data": result}))
    assert "✅ data: 2 passed\n\nRun on a sample, 80 of 343 train rows; on all rows: Data Duplicates.\n" in text
    assert "Run on" not in report.compose(candidate())


def test_the_expected_value_has_its_unit_and_no_release_with_other_amounts_beside_it() -> None:
    """Amounts are shown whole."""
    case = candidate()
    amounts = {"bad": {"bad": -400, "good": -20_000}, "good": {"bad": -400, "good": 0}}
    value = {"unit": "a|<b>", "decisions": 400, "running_cost": 0, "answers": amounts, "error": None}
    case.settings = Settings.model_validate(SETTINGS | {"value": value | {"today": {"answer": "bad"}}})
    case.metrics["metrics"]["expected_value"] = {"value": -52_300.4, "low": -190_000, "high": -47_000}  # type: ignore[index]
    row = r"| expected_value (a\|&lt;b&gt; a month) ↑ | **-52,300** (-190,000 to -47,000) |"
    assert f"{row} – | – |" in report.compose(case)
    record = case.production.record.model_dump()  # type: ignore[union-attr]
    for decisions, then in ((400, "**-60,000** (-99,000 to -50,000) | +7,700 🟢"), (4, "– | –")):
        record["params"] |= {"value": case.settings.value.model_dump(mode="json") | {"decisions": decisions}}
        record["metrics"]["expected_value"] = {"value": -60_000, "low": -99_000, "high": -50_000}
        case.production = Deployed("e" * 40, Release.model_validate(record))
        assert f"{row} {then} |" in report.compose(case)


def test_the_result_comes_first() -> None:
    text = report.compose(candidate())
    assert text.startswith("## ✅ Accepted")
    for expected in (
        "| roc_auc ↑ | **0.75** (0.65 to 0.85) | **0.5** (0.4 to 0.6) | +0.25 (+0.2 to +0.3) 🟢 |",
        "| f1 ↑ | **0.75** (0.65 to 0.85) | **0.5** (0.4 to 0.6) | +0.25 🟢 |",
        "| brier ↓ | **0.75** (0.65 to 0.85) | **0.5** (0.4 to 0.6) | +0.25 (-0.1 to +0.5) ⚪ |",
        "from a probability of 0.3125 on (the best f1 on the validation split, 0.875 there); in production from 0.5 on",
        "by 0.0200 (expected calibration error on the test rows); without the temperature, which is 1.25, by 0.0400.",
        "| `train.epochs` | `7` | `200` |",
        "| rows: raw | 10 | 12 |",
        "| rows: dropped duplicates | 0 | 2 |",
        "| rows: dropped repeated ids | 3 | 0 |",
        "| column `gone` | number | – |",
        "md5 `000000000000` | md5 `111111111111`",
        f"{markdown.PALETTE}\nxychart-beta",
        "Loss: training in blue, validation in orange",
        "Best epoch 199 of 199",
        "+image: new",
        "commit `aaaaaaaaaaaa`",
    ):
        assert expected in text
    assert "dropped missing target" not in text  # none then, none now


def test_an_interval_says_how_often_it_holds_where_that_is_not_as_it_says() -> None:
    case = candidate()
    case.metrics["metrics"]["f1"]["coverage"] = 0.884  # type: ignore[index]
    case.metrics["metrics"]["brier"]["coverage"] = None  # type: ignore[index]
    case.metrics["metrics"]["accuracy"] = {"value": 1.0, "low": 1.0, "high": 1.0, "coverage": None}  # type: ignore[index]
    text = report.compose(case)
    assert "| f1 ↑ | **0.75** (0.65 to 0.85; 88 % measured) |" in text
    assert "| brier ↓ | **0.75** (0.65 to 0.85; coverage not measured) |" in text
    assert "| accuracy ↑ | **1** (no interval: equal in every resample) |" in text
    assert "| roc_auc ↑ | **0.75** (0.65 to 0.85) |" in text and "docs/statistics.md" in text
    assert "Measured:" not in report.compose(candidate())


def test_groups_of_rows_are_counted_where_there_are_some() -> None:
    assert "100 test rows; ↑" in report.compose(candidate())
    case = candidate()
    case.metrics["groups"] = 40  # type: ignore[index]
    assert "100 test rows in 40 groups; ↑" in report.compose(case)


def test_slices_stand_worst_first_with_their_intervals() -> None:
    case = candidate()
    names = Settings.metrics["binary"]
    cells = {value: {name: score(value) for name in names} for value in (0.9, 0.6, 0.8)}
    values: dict[str, Any] = {f"at {value}": {"rows": 50, "metrics": scores} for value, scores in cells.items()}
    values |= {"few": {"rows": 7, "metrics": None}, "one class": {"rows": 40, "metrics": dict.fromkeys(names)}}
    case.metrics["slices"] = {"site": values}  # type: ignore[index]
    text = report.compose(case)
    lines = [line for line in text.split("\n") if line.startswith(("| at ", "| few", "| one class"))]
    assert lines == [
        "| at 0.6 | 50 | **0.6** (0.5 to 0.7) |",
        "| at 0.8 | 50 | **0.8** (0.7 to 0.9) |",
        "| at 0.9 | 50 | **0.9** (0.8 to 1) |",
        "| few | 7 | – |",
        "| one class | 40 | – |",
    ]
    assert "fewer than 30 rows (`evaluate.min_slice_rows`)" in text


def test_a_refusal_a_failed_check_and_an_unfinished_pipeline_come_first() -> None:
    refused = candidate().gate | {"accepted": False, "reason": "Refused: worse."}  # type: ignore[operator]
    assert report.compose(candidate(gate=refused)).startswith("## ❌ Refused")
    condition = {"check": "Label Drift", "condition": "< 0.15", "status": "failed", "details": "0.4 @everyone"}
    failed = {"data": {"passed": False, "conditions": [condition], "not_run": []}}
    text = report.compose(candidate(gate=None, metrics=None, curve=[], validations=failed))
    assert text.startswith("## ❌ Stopped: validation of the data failed")
    assert "| Label Drift | &lt; 0.15 | 0.4" in text
    stopped = report.compose(candidate(gate=None, metrics=None, curve=[], validations={}, stale=["train"]))
    assert stopped.startswith("## ❌ Incomplete: stage `train`")
    assert report.compose(candidate(gate=None)).startswith("## ❌ No gate result")


def rule(passed: bool, **more: Any) -> dict[str, Any]:
    found = {"rule": "roc_auc at least 0.9", "value": 0.95, "limit": 0.9, "passed": passed, "bound": None}
    return found | {"release": None} | more


def test_the_gate_shows_its_rules_and_the_releases_that_it_compared_with() -> None:
    alone = candidate()
    alone.gate |= {"rules": [rule(True)]}  # type: ignore[operator]
    assert "| ✅ | roc\\_auc at least 0.9 | 0.95 | 0.9 |\n" in report.compose(alone)
    assert "releases that" not in report.compose(alone)

    difference = {"value": -0.02, "low": -0.03, "high": -0.01, "lower": -0.028, "upper": -0.012}
    release = {"release": "1" * 40, "title": "m 1, release 1", "deployed": True, "basis": "on the same test rows"}
    releases = [
        release | {"value": 0.97, "difference": difference},
        release | {"release": "2" * 40, "title": f"m 2 {HOSTILE}", "deployed": False, "value": 0.9, "difference": None},
    ]
    several = candidate()
    several.gate |= {  # type: ignore[operator]
        "rules": [rule(True), rule(False, rule="roc_auc worse", value=-0.02, bound=-0.012, release="m 1, release 1")],
        "releases": releases,
        "best": {"commit": "1" * 40},
        "left_out": {"m 3, release 3": f"object is nowhere {HOSTILE}"},
    }
    text = report.compose(several)
    for expected in (
        "|  | rule | value | limit | 95 % bound | decided by |",
        "| ❌ | roc\\_auc worse | -0.02 | 0.9 | -0.012 | m 1, release 1 |",
        "| m 1, release 1 (production) **best** | 0.97 | **-0.02** (-0.03 to -0.01) | -0.012 | on the same test rows |",
        "1 releases that could not be compared",
    ):
        assert expected in text
    assert "<img" not in text and "@everyone" not in text
    several.gate |= {"decision": "not_worse"}  # type: ignore[operator]
    assert "(-0.03 to -0.01) | -0.028 |" in report.compose(several)


def test_text_from_data_stays_text() -> None:
    text = report.compose(candidate())
    assert "<img" not in text
    assert "<!--" not in text
    assert "@everyone" not in text
    assert not re.search(r"(?<!\\)\[click", re.sub("`.*?`", "", text))  # in code it is no link
    html = page.page("".join(section(candidate()) for section in sections.ORDER), candidate(curve=[], metrics=None))
    assert "<img src=x>" not in html


def test_it_fits_a_comment_whatever_the_input() -> None:
    long = "w" * 5000
    names = Settings.metrics["binary"]
    many = {f"{long}{number}": {"rows": 1, "metrics": {name: score(0.5) for name in names}} for number in range(500)}
    conditions = [
        {"check": long, "condition": long, "status": "failed", "details": long + str(number)} for number in range(500)
    ]
    case = candidate(
        schema={"rows": {}, "features": [{"name": f"{long}{number}", "dtype": "number"} for number in range(5000)]},
        validations={name: {"passed": False, "conditions": conditions, "not_run": []} for name in ("data", "model")},
        deployment="+" + long * 100,
    )
    case.metrics["slices"] = {f"{long}{number}": many for number in range(20)}  # type: ignore[index]
    text = report.compose(case)
    assert len(text) < 60_000
    assert text.startswith("## ✅ Accepted")
    assert "commit `aaaaaaaaaaaa`" in text
    assert text.count("<details>") == text.count("</details>")
    assert text.count("```") % 2 == 0


def test_what_argo_cd_would_not_apply_stands_before_the_manifests() -> None:
    """Open to see, whether or not a manifest changes, and without the effect of a kind's name."""
    warnings = ["The release needs ScaledObject (keda.sh)", f"does not list the kind {HOSTILE}"]
    text = report.compose(candidate(warnings=warnings))
    section = text[text.index("### Deployment") : text.index("<details><summary>What merging would change")]
    assert section.startswith(
        "### Deployment\n\n⚠️ The release needs ScaledObject (keda.sh).\n\n⚠️ does not list the kind"
    )
    assert HOSTILE not in section
    assert "ScaledObject (keda.sh).\n\n" in report.compose(candidate(warnings=warnings, deployment=""))
    assert "### Deployment\n\nMerging changes no manifest." in report.compose(candidate(deployment=""))


def test_the_page_is_self_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no stage has left data to plot
    html = page.page(report.compose(candidate()), candidate())
    assert html.count("<img alt=") == 3  # learning curve, against production, confusion
    assert "mermaid" not in html
    addresses = re.findall(r"<[^>]*(?:src|href)=.(\w*:?)", html)
    assert set(addresses) == {"data:"}
    for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html):
        picture = base64.b64decode(data)
        assert picture[12:16] == b"IHDR" and picture[25] == 3  # by a palette, which is a third of the size
        assert len(picture) < 40_000


def test_the_point_of_the_decision_is_on_the_roc_curve() -> None:
    figure = plt.figure()
    axes = figure.add_subplot()
    page._roc(axes, pd.DataFrame({"fpr": [0, 1], "tpr": [0, 1]}), candidate())
    (point,) = (line for line in axes.lines if line.get_marker() == "o")
    assert (*point.get_xdata(), *point.get_ydata()) == pytest.approx((1 / 51, 47 / 49))
    assert axes.get_legend().get_texts()[0].get_text() == "from 0.312 on"
    plt.close(figure)


def test_a_fence_cannot_be_closed_from_inside() -> None:
    assert markdown.fenced("a\n```\nb").startswith("````\n")


def test_a_missing_result_is_not_taken_from_an_older_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of every stage lie there; those of stale stages must not be read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gitops.releases.release.production", lambda: None)
    monkeypatch.setattr("gitops.integrations.git.run", lambda *arguments: "a" * 40)
    for path in (
        "data/prepared/schema.json",
        "evaluation/metrics.json",
        "reports/gate.json",
        "reports/validate_model.json",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text('{"passed": true, "model_sha256": "old"}', encoding="utf-8")
    found = context.gather(Settings.model_validate(SETTINGS), ["train", "evaluate", "validate_model", "package"])
    assert found.schema
    assert (found.metrics, found.gate, found.curve, found.validations) == (None, None, [], {})


@pytest.mark.parametrize(("passed", "reported"), [(True, {}), (False, {"data": {"passed": False}})])
def test_of_a_stale_validation_only_a_failure_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed: bool, reported: dict[str, Any]
) -> None:
    """A stage that has failed is stale; a result that passed and is stale was about other data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gitops.releases.release.production", lambda: None)
    monkeypatch.setattr("gitops.integrations.git.run", lambda *arguments: "a" * 40)
    artifacts.write_json(artifacts.DATA_VERDICT, {"passed": passed})
    later = ["validate_data", "train", "evaluate", "validate_model", "package"]
    assert context.gather(Settings.model_validate(SETTINGS), later).validations == reported


def test_the_model_card_is_written_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is up to date, at the commit that the report is about."""
    monkeypatch.chdir(tmp_path)
    found = candidate(stale=["train", "evaluate"])
    monkeypatch.setattr(params, "load", lambda: found.settings)
    monkeypatch.setattr(dvc, "stale", lambda: found.stale)
    monkeypatch.setattr(context, "gather", lambda settings, stale: found)
    artifacts.write_json(artifacts.METRICS, {"metrics": {}})
    report.main()
    card = artifacts.MODEL_CARD.read_text()
    assert card.startswith("---\nlicense: ") and found.commit in card
    assert "the model has not been evaluated on what is here" in card
