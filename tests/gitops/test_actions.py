"""What a command and GitHub Actions tell each other, and the log of the pipeline, which the report quotes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from gitops.core import actions, artifacts
from gitops.reporting import context, report
from gitops.retraining import pipeline

LOG = """\
Running stage 'prepare':
> .venv/pipeline/bin/python -m breast_cancer.prepare
raw 569
Running stage 'train':
> .venv/pipeline/bin/python -m breast_cancer.train
epoch 1\repoch 2\repoch 3
\x1b[31mValueError: <b>no</b> @everyone\x1b[0m
ERROR: failed to reproduce 'train': failed to run: .venv/pipeline/bin/python -m breast_cancer.train, exited with 1
"""


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_EVENT_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("event", "head"),
    [
        ({"pull_request": {"number": 7, "head": {"sha": "abc"}}}, "abc"),
        ({"ref": "refs/heads/main"}, None),
        (None, None),
    ],
)
def test_the_head_of_a_pull_request(
    event: object, head: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if event is not None:
        (tmp_path / "event.json").write_text(json.dumps(event))
        monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    assert actions.head() == head


def test_the_stages_know_the_pull_requests_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "event.json").write_text('{"pull_request": {"number": 7, "head": {"sha": "abc"}}}')
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    pipeline.run([sys.executable, "-c", "import os; print(os.environ['COMMIT'])"])
    assert artifacts.PIPELINE_LOG.read_text() == "abc\n"


def test_an_output_of_several_lines_cannot_become_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    actions.output({"labels": "a=1\nEOF\nrelease=true", "release": "false"})
    lines = (tmp_path / "output").read_text().splitlines()
    end = lines[0].removeprefix("labels<<")
    assert lines == [f"labels<<{end}", "a=1", "EOF", "release=true", end, f"release<<{end}", "false", end]
    assert len(end) >= 32


def test_outside_actions_nothing_is_passed_on() -> None:
    actions.output({"release": "true"})
    actions.summarise("text")
    assert list(Path().iterdir()) == []


def test_the_pipeline_keeps_what_it_prints(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    program = """
import os, sys
print('out')
print('err', file=sys.stderr)
print(os.environ['DVC_NO_ANALYTICS'])
sys.exit(3)
"""
    assert pipeline.run([sys.executable, "-c", program]) == 3
    assert artifacts.PIPELINE_LOG.read_text() == "out\nerr\n1\n"
    assert capfdbinary.readouterr().out == b"out\nerr\n1\n"


def test_the_failed_stage_and_its_last_lines_are_found() -> None:
    assert context.failure(["train"]) is None
    artifacts.write_text(artifacts.PIPELINE_LOG, LOG)
    found = context.failure(["train", "evaluate"])
    assert found is not None
    assert found.stage == "train"
    assert found.lines[:3] == [
        "> .venv/pipeline/bin/python -m breast_cancer.train",
        "epoch 3",
        "ValueError: <b>no</b> @everyone",
    ]
    assert "raw 569" not in found.lines


def test_what_ran_beside_the_failed_stage_is_no_part_of_its_output() -> None:
    """It is printed when both have ended."""
    beside = "Stage 'other' didn't change, skipping\nRunning stage 'package':\n> python -m package\n0.3 MiB\n"
    artifacts.write_text(artifacts.PIPELINE_LOG, LOG + beside)
    found = context.failure(["train", "package"])
    assert found and found.stage == "train"
    assert found.lines[0].endswith("breast_cancer.train") and found.lines[-1].startswith("ERROR: failed to reproduce")
    other = LOG.replace("ERROR: failed", "ok") + beside + "ERROR: failed to reproduce 'package': failed to run\n"
    artifacts.write_text(artifacts.PIPELINE_LOG, other)
    found = context.failure(["package"])
    assert found and found.lines[0] == "> python -m package" and found.lines[1] == "0.3 MiB"


def test_an_error_of_dvc_itself_is_reported() -> None:
    artifacts.write_text(artifacts.PIPELINE_LOG, "ERROR: unexpected error - Unable to locate credentials\n")
    found = context.failure(["prepare"])
    assert found == context.Failure("make pipeline", ["ERROR: unexpected error - Unable to locate credentials"])


def test_a_failure_that_is_fixed_is_not_reported() -> None:
    artifacts.write_text(artifacts.PIPELINE_LOG, LOG)
    assert context.failure([]) is None


def test_only_the_last_lines_are_reported() -> None:
    lines = "".join(f"line {number}\n" for number in range(500))
    artifacts.write_text(artifacts.PIPELINE_LOG, LOG.replace("epoch 1\repoch 2\repoch 3\n", lines))
    found = context.failure(["train"])
    assert found is not None
    assert len(found.lines) == context.LOG_LINES
    assert found.lines[-1].startswith("ERROR: failed to reproduce 'train'")


def test_unusable_settings_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    artifacts.PARAMS.write_text("data: {target: 5, colour: red}\n")
    artifacts.write_text(artifacts.MODEL_CARD, "of another run")
    report.main()
    text = artifacts.REPORT.read_text()
    assert "params.yaml" in text
    assert "colour" in text
    assert summary.read_text() == f"{text}\n"
    assert not artifacts.REPORT_HTML.exists() and not artifacts.MODEL_CARD.exists()
