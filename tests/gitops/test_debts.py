"""`make debts`: what is written of the findings. Each finder: test_debts_data.py, test_debts_code.py."""

from __future__ import annotations

import json

import pytest
from gitops.core import artifacts
from gitops.debt import found
from gitops.debt.finding import Finding
from owing import repository as repository


def test_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    one: Finding = {"debt": "feedback loop", "file": "a|b.md", "line": 3, "text": "<b>x</b> @you", "known": True}
    monkeypatch.setattr(found, "find", lambda settings: iter([one, one | {"known": False, "file": None, "line": None}]))
    found.main()
    assert json.loads(artifacts.DEBTS.read_text())[0] == one
    page = artifacts.DEBTS_TABLE.read_text()
    assert "1 found, and 1 that could not be looked up" in page and "`a¦b.md:3`" in page
    assert "<b>" not in page and "@you" not in page and page.index("## Not known") > page.index("a¦b.md")


def test_outside_of_git_it_says_so(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(artifacts.ProjectError, match="git init"):
        found.main()
