"""A repository in which debts are planted for `make debts`, and what is looked for in the findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SETTINGS
from gitops.core import params
from gitops.integrations import git


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a table that is tracked, and no request log."""
    monkeypatch.chdir(tmp_path)
    for name in ("REQUEST_LOG", "LABELS", "OSV_URL"):
        monkeypatch.delenv(name, raising=False)
    git.run("init", "--quiet", "--initial-branch", "main")
    configure()
    write("data/raw.csv.dvc", "outs:\n- md5: abc\n  path: raw.csv\n")
    commit("Begin")
    return tmp_path


def configure(**changes: Any) -> params.Params:
    """Write params.yaml with changed settings of sections, and read it."""
    settings = {section: {**values} if isinstance(values, dict) else values for section, values in SETTINGS.items()}
    for section, values in changes.items():
        settings[section] |= values
    write("params.yaml", yaml.safe_dump(settings, sort_keys=False))
    return params.load()


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def commit(message: str) -> str:
    git.run("add", "--all")
    git.run(*git.FALLBACK, "commit", "--quiet", "--allow-empty", "-m", message)
    return git.run("rev-parse", "HEAD")


def texts(findings: Any, known: bool = True) -> list[str]:
    return [each["text"] for each in findings if each["known"] is known]


def line_of(name: str, start: str) -> int:
    lines = Path(name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))
