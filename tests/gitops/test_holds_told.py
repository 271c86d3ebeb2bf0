"""Where people see that a rollback holds something up: the page of the run, and the report of a pull request."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from gitops.core import params
from gitops.core.artifacts import ProjectError
from gitops.reporting import context, report, sections
from holding import STAGES, began, isolated, merge, planned, reported, undone_on_main
from releases import Job


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolated(monkeypatch)


def test_the_runs_page_says_it(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    merge(job, "model", "good")
    job.deploy()
    job.write("src/5%0A\n::stop-commands::é.py", "")
    second = merge(job, "handler")
    job.deploy()
    job.rollback()
    job.gate()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    capsys.readouterr()
    with pytest.raises(ProjectError) as error:
        planned(job)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    told = " ".join(str(error.value).split()).replace("%", "%25")
    assert line == f"::error title=Not released to production, which rolled it back::{told}"
    assert "src/5%250A ::stop-commands::é.py" in line
    summary = (tmp_path / "summary").read_text()
    assert summary.startswith("### Not released to production, which rolled it back\n") and second[:12] in summary


def test_the_report_of_a_pull_request_says_it(job: Job) -> None:
    _, second = began(job, "handler")
    assert reported(job) == ""
    job.rollback()
    merge(job, "documents", "new")
    text = reported(job)
    assert text.startswith("### ⛔ Will not be released to production: it was rolled back there\n\n- commit ")
    assert f"git revert {second[:12]}" in text and "REDEPLOY=1" in text
    with contextlib.chdir(job.path):
        assert report.compose(context.gather(params.load(), STAGES)).count(text) == 1
    assert sections.rollbacks in sections.SUMMARY, "of a retraining's pull request too"
    undone_on_main(job, second)
    text = reported(job)
    assert text.startswith("### Will be released to production again\n\nWhat production rolled back, toy ")
    assert f"of `{second[:12]}`, is undone here: merging is not held up." in text
    merge(job, "data", "1")
    assert job.deploy() and reported(job) == ""


def test_the_report_knows_the_model(job: Job) -> None:
    """Another history of main leads to it."""
    first, _ = began(job, "model")
    job.rollback()
    job.git("reset", "--quiet", "--hard", first)
    merge(job, "documents", "another history")
    merge(job, "model")
    assert reported(job) == ""
    job.write("model/learning_curve.csv", "epoch\n1\n")
    assert "has the same model" in reported(job, [name for name in STAGES if name != "train"])
