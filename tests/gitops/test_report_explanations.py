"""The report's explanations: candidate beside production, and what is said where production has none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.releases.record import Deployed, File
from gitops.rendering import html
from gitops.reporting import context, explanations_plots, page, report
from gitops.reporting.context import Context
from test_report import HOSTILE, candidate, data_md5  # noqa: F401  a fixture

#: What a column may be called that matplotlib would read as a formula, and one that it cannot.
FORMULA = r"$\frac{1}{0$ price"


def explained(**changes: Any) -> dict[str, Any]:
    """The contents of explanations.json."""
    features = [
        {"name": name, "importance": 0.25 / place, "low": 0.125 / place, "high": 0.5 / place}
        for place, name in enumerate(("size", HOSTILE, FORMULA, "old"), 1)
    ]
    dependence = {
        "size": {"x": [1.0, 2.5, 4.0], "y": [0.1, 0.5, 0.9], "of": "yes"},
        HOSTILE: {"x": [HOSTILE, FORMULA], "y": [0.25, 0.5], "of": "yes"},
        FORMULA: {"x": ["2026-01-01", "2026-01-31"], "y": [0.25, 0.5], "of": "yes"},
        "old": {"x": [False, True], "y": [0.25, 0.5], "of": "yes"},
    }
    counts = {"rows": 100, "of_rows": 100, "of_columns": 4, "repeats": 5}
    return {"metric": "roc_auc", **counts, "features": features, "dependence": dependence, **changes}


def case(now: dict[str, Any] | None, then: dict[str, Any] | None = None) -> Context:
    return candidate(explanations=now, production_explanations=then)


def test_the_candidate_stands_beside_production_the_most_important_column_first() -> None:
    then = explained(features=[{"name": "size", "importance": 0.5, "low": 0.25, "high": 0.75}])
    text = report.compose(case(explained(), then))
    section = text[text.index("### Explanations") :]
    lines = [line for line in section.split("\n") if line.startswith("|")]
    assert lines[2] == "| `size` | **0.25** (0.125 to 0.5) | **0.5** (0.25 to 0.75) |"
    assert lines[5] == "| `old` | **0.0625** (0.03125 to 0.125) | – |"
    assert "How much worse roc\\_auc is" in section and "on 100 test rows. Columns that say the same" in section
    assert "<img" not in text and "@everyone" not in text
    assert text.index("### Slices") < text.index("### Explanations") < text.index("### Deployment")


def test_a_sample_of_a_large_table_is_called_one() -> None:
    text = report.compose(case(explained(of_rows=5000, of_columns=1500)))
    assert "on a sample of 100 of 5000 test rows. Of 1500 columns those were tried that tell most" in text
    many = [{"name": f"x{place}", "importance": 0.1, "low": 0.0, "high": 0.2} for place in range(30)]
    text = report.compose(case(explained(features=many)))
    assert "`x9`" in text and "`x10`" not in text and "… and 20 more in evaluation/explanations.json." in text


def test_what_production_lacks_is_said() -> None:
    assert "### Explanations" not in report.compose(case(None, explained()))
    assert "### Explanations" not in report.compose(case(explained(features=[], dependence={})))
    assert "has none, or they cannot be fetched any more" in report.compose(case(explained()))
    text = report.compose(case(explained(), explained(metric="f1")))
    assert "Production's are by f1, and not shown." in text and "| `size` | **0.25** (0.125 to 0.5) | – |" in text
    other = case(explained(), explained())
    other.metrics["test_md5"] = "other"  # type: ignore[index]
    assert "Production's are those of its release, on the test rows of then." in report.compose(other)
    first = case(explained())
    first.production = None
    assert "roduction" not in report.compose(first).partition("### Explanations")[2].partition("###")[0].replace(
        "| column | candidate | production |", ""
    )


@pytest.mark.parametrize("then", [None, explained(), explained(dependence={}), explained(metric="f1")])
def test_the_pictures_are_drawn_whatever_the_names(
    then: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.page(report.compose(case(explained(), then)), case(explained(), then))
    assert len(re.findall('<img alt="(?:Importance of|Answers over the values of) columns"', text)) == 2
    assert "<img src=x>" not in text


def test_a_panel_has_both_curves_and_the_quantiles_of_the_training_rows() -> None:
    then = explained()
    then["dependence"]["size"] = {"x": [0.0, 4.0], "y": [0.2, 0.4], "of": "yes"}
    then["dependence"]["old"] = {"x": [False, True], "y": [0.2, 0.4], "of": "no"}  # another class: not comparable
    figure = plt.figure()
    axes = figure.add_subplot()
    explanations_plots._dependence(axes, explained(), then, "probability of ")
    _, size, categories, dates, old = figure.axes
    before, now, marks = size.lines
    assert [*before.get_ydata()] == [0.2, 0.4] and [*now.get_ydata()] == [0.1, 0.5, 0.9]
    assert [*marks.get_xdata()] == [1.0, 2.5, 4.0] and marks.get_marker() == "|"
    assert [len(panel.lines) for panel in (categories, dates, old)] == [2, 2, 1]
    assert [label.get_text() for label in dates.get_xticklabels()] == ["2026-01-01", "2026-01-31"]
    assert size.get_ylabel() == "probability of yes" and size.get_ylim() == old.get_ylim()
    plt.close(figure)
    assert html.figure("x", lambda axes: explanations_plots._dependence(axes, explained(), then, ""))


def test_explanations_are_read_where_they_are_fresh_and_fetched_of_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gitops.integrations.git.run", lambda *arguments: "a" * 40)
    monkeypatch.setattr("gitops.reporting.context._rollbacks", lambda *_: {})
    artifacts.write_json(artifacts.METRICS, {"model_sha256": "s"})
    artifacts.write_json(artifacts.EXPLANATIONS, explained())
    artifacts.write_json(tmp_path / "object", explained(rows=7))
    asked: list[str] = []

    def fetch(md5: str) -> Path:
        asked.append(md5)
        if md5 == "gone":
            raise ProjectError("it is neither here nor there")
        return tmp_path / "object"

    monkeypatch.setattr("gitops.integrations.dvc.fetch", fetch)
    settings, record = candidate().settings, candidate().production.record  # type: ignore[union-attr]

    def gathered(md5: str | None, *stale: str) -> Context:
        file = File(path="evaluation/explanations.json", md5=md5) if md5 else None
        deployed = Deployed("e" * 40, record.model_copy(update={"explanations": file}))
        monkeypatch.setattr("gitops.releases.release.production", lambda: deployed)
        return context.gather(settings, ["train", "package", *stale])

    found = gathered("there")
    assert found.explanations == explained() and found.production_explanations == explained(rows=7)
    assert [gathered(md5).production_explanations for md5 in ("gone", None)] == [None, None]
    assert gathered("there", "evaluate").explanations is None
    assert asked == ["there", "gone"]
