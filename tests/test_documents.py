"""The design documents of a generated project: questions, the block for the machine, and what CRISP-DM's page names."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from projects import ROOT, environment, module_of

DOCUMENTS = ("business-understanding", "data-understanding", "model-card", "system-design")

#: What a phrase between backticks is when it is neither a command nor a file nor a setting.
OTHER = {"DERIVED"}


@pytest.fixture(scope="module")
def questions() -> ModuleType:
    return module_of(ROOT / "{{cookiecutter.project_slug}}", "src/gitops/design/questions.py")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_questions_are_well_formed(name: str, project: Path, questions: ModuleType) -> None:
    """Each stands under a heading, has one line of help, and is open or answered for the bundled table."""
    path = project / f"docs/{name}.md"
    text, found = path.read_text(encoding="utf-8"), questions.read(path)
    assert len(found) == len(re.findall(r"^\*\*[^*\n]*\?\*\*", text, re.MULTILINE)) >= 5
    assert len({question.text for question in found}) == len(found)
    for question in found:
        assert question.heading and question.heading in text
        assert question.answer is None or question.bundled, question.text
        assert re.search(rf"^\*\*{re.escape(question.text)}\*\*\n<!-- [^\n]+ -->\n\n_", text, re.MULTILINE), (
            question.text
        )
    assert (text.count(questions.BEGIN), text.count(questions.END)) == ((0, 0) if name == "model-card" else (1, 1))


def test_a_quarter_of_an_hour_is_enough(project: Path, questions: ModuleType) -> None:
    asked = [question for name in DOCUMENTS for question in questions.read(project / f"docs/{name}.md")]
    assert len(asked) <= 30  # half a minute each
    assert {question.answer is None for question in asked} == {True, False}


def test_crisp_dm_names_what_there_is(project: Path) -> None:
    """Commands, files that Git tracks or a command makes, and settings."""
    text = (project / "docs/crisp-dm.md").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*) FORCE$", (project / "Makefile").read_text(), re.MULTILINE)
    assert phony
    made = (project / "dvc.yaml").read_text() + (project / "src/gitops/core/artifacts.py").read_text()
    made += (project / "src/gitops/reporting/report.py").read_text()
    settings = yaml.safe_load((project / "params.yaml").read_text())
    named: dict[str, int] = dict.fromkeys(("command", "file", "setting"), 0)
    for phrase in re.findall(r"`([^`]+)`", text):
        section, _, key = phrase.partition(".")
        if phrase.startswith("make "):
            named["command"] += 1
            targets = re.findall(r"[a-z-]+", phrase.partition(" ARGS=")[0])[1:]
            assert targets and {*targets} <= {*phony[1].split()}, phrase
        elif "/" in phrase or phrase.endswith((".yaml", ".md")):
            named["file"] += 1
            assert (project / phrase).is_file() or phrase in made, phrase
        elif phrase not in OTHER:
            named["setting"] += 1
            assert section in settings and (not key or key in settings[section]), phrase
    assert min(named.values()) > 10


@pytest.mark.real
def test_what_is_filled_in_is_fresh(trained: Path, tmp_path: Path) -> None:
    """After the pipeline `make documents` changes documents alone, once, and its check then passes."""
    project = tmp_path / "project"
    shutil.copytree(trained, project, ignore=shutil.ignore_patterns(".venv"), symlinks=True)

    def documents(*options: str) -> subprocess.CompletedProcess[str]:
        command = [str(trained / ".venv/pipeline/bin/python"), "-m", "gitops.design.documents", *options]
        variables = environment() | {"PYTHONPATH": str(project / "src")}
        return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)

    before = documents("--check")
    assert before.returncode == 1, before.stderr
    assert documents().returncode == 0
    changed = subprocess.run(["git", "diff", "--name-only"], cwd=project, capture_output=True, text=True).stdout
    filled = [f"docs/{name}.md" for name in sorted(DOCUMENTS) if name != "model-card"]
    assert [name for name in changed.split() if name.startswith("docs/")] == filled
    after = documents("--check")
    assert after.returncode == 0, after.stdout + after.stderr
    text = (project / "docs/data-understanding.md").read_text()
    assert "| rows | 569 |" in text and "| `worst concave points` | number | 0 % |" in text
    assert "Bundled table" in text
