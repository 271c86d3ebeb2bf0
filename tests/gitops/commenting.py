"""Shared by the tests of `make comment`: one run of it, and what stands for GitHub."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from github_server import ACTIONS, GitHub
from gitops.core import artifacts
from gitops.integrations import github
from gitops.reporting import comment

OLD, SHA = "0" * 39 + "1", "a" * 40
REPORT = "## ✅ Accepted: toy\n\n| metric | candidate |\n| --- | --- |\n| f1 | **0.9** |\n"

#: Where CML is not wanted, PATH holds git alone.
PATH, REAL_CML = os.environ["PATH"], shutil.which("cml")


class Bench:
    """A run of `make comment`: what GitHub tells it, what CI left, and what came out."""

    def __init__(self, server: GitHub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.server, self.folder, self.monkeypatch, self.capsys = server, folder, monkeypatch, capsys
        self.reports = folder / "artifact/reports"
        self.event: dict[str, Any] = {
            "id": 77,
            "html_url": f"{server.url}/owner/name/actions/runs/77",
            "event": "pull_request",
            "conclusion": "success",
            "head_sha": SHA,
            "head_branch": "change",
            "head_repository": {"full_name": "owner/name", "owner": {"login": "owner"}},
            "pull_requests": [],
        }

    def leave(self, report: str | None, number: object = 12) -> None:
        """Lay down what CI's artifact holds."""
        self.reports.mkdir(parents=True, exist_ok=True)
        for name, text in ((artifacts.REPORT, report), (artifacts.PULL_REQUEST, number)):
            if text is not None:
                (self.folder / "artifact" / name).write_text(f"{text}\n", encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status, and what was printed on both outputs."""
        (self.folder / "event.json").write_text(json.dumps({"workflow_run": self.event}))
        self.monkeypatch.setattr(sys, "argv", ["comment", *(arguments or ("--artifact", "artifact"))])
        with pytest.raises(SystemExit) as ended:
            artifacts.run(comment.main)
        out, err = self.capsys.readouterr()
        assert self.server.token not in out + err
        return int(ended.value.code or 0), out, err

    def posted(self) -> list[str]:
        """Return what we have said, in all comments of all pull requests."""
        said = [entry for comments in self.server.comments.values() for entry in comments]
        return [entry["body"] for entry in said if entry["user"]["login"] == ACTIONS]

    def refused(self, match: str) -> None:
        """Run, and require one line of error that `match` finds and no comment."""
        before = self.posted()
        status, _, error = self.run()
        assert (status, error.count("\n")) == (1, 1)
        assert re.search(match, error), error
        assert self.posted() == before


@contextmanager
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Bench]:
    """Pull request 12 is open, CI has ended well, and there is no CML."""
    unwanted = r"GITHUB_|CML_|CI$|GIT_|SSL_|NODE_|REPO_TOKEN$|(?i:https?_proxy|all_proxy)$"
    for name in [name for name in os.environ if re.match(unwanted, name)]:
        monkeypatch.delenv(name)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git") or "git")
    with GitHub(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(github, "PAUSE", 0)
        server.open_pull(12, SHA)
        made = Bench(server, tmp_path, monkeypatch, capsys)
        made.leave(REPORT)
        yield made


def stub(bench: Bench, script: str) -> Path:
    """Put a `cml` on PATH that is `script`, in Python; return its folder, in which it may leave something."""
    program = bench.folder / "programs/cml"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\nhere = pathlib.Path(__file__).parent\n{script}"
    )
    program.chmod(0o755)
    return program.parent


def writes(server: GitHub) -> list[str]:
    return [call.method for call in server.calls if call.method != "GET"]
