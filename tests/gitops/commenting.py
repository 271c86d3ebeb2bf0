"""Shared by the tests of `make comment`: one run of it, and what stands for GitHub."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import zipfile
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
    """A run of `make comment`: what GitHub tells it, what CI left, and what came out.

    `run_of_ci` is the run that has ended. `events` are the payloads by the event's name, one of them `name`.
    """

    def __init__(self, server: GitHub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.server, self.folder, self.monkeypatch, self.capsys = server, folder, monkeypatch, capsys
        server.ran(77, SHA)
        self.run_of_ci = server.runs[0]
        self.name, self.ref = "workflow_run", "refs/heads/main"
        self.events: dict[str, Any] = {"workflow_run": {"workflow_run": self.run_of_ci}, "push": {}}

    def leave(self, report: str | None, **options: bool) -> None:
        """Lay down what CI's artifact holds; None: there is no artifact."""
        self.server.artifacts.clear()
        if report is not None:
            self.pack({artifacts.REPORT.as_posix(): f"{report}\n"}, **options)

    def pack(self, files: dict[str | zipfile.ZipInfo, str | bytes], **options: bool) -> None:
        """Store an artifact with these files, as packed as GitHub's are."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as contents:
            for name, content in files.items():
                contents.writestr(name, content)
        self.server.store("report", archive.getvalue(), run=77, **options)

    def of_fork(self, name: str = "stranger/name") -> None:
        """Let the run be that of a fork's pull request."""
        owner = {"login": name.partition("/")[0]}
        self.run_of_ci |= {"event": "pull_request", "head_repository": {"full_name": name, "owner": owner}}

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status, and what was printed on both outputs."""
        (self.folder / "event.json").write_text(json.dumps(self.events[self.name]))
        self.monkeypatch.setenv("GITHUB_EVENT_NAME", self.name)
        self.monkeypatch.setenv("GITHUB_REF", self.ref)
        self.monkeypatch.setattr(sys, "argv", ["comment", *arguments])
        with pytest.raises(SystemExit) as ended:
            artifacts.run(comment.main)
        out, err = self.capsys.readouterr()
        assert self.server.token not in out + err
        return int(ended.value.code or 0), out, err

    def silent(self, match: str) -> None:
        """Run, and require a line that says why nothing is posted."""
        before = self.posted()
        status, out, error = self.run()
        assert (status, error) == (0, "")
        assert re.fullmatch(f"nothing is posted: .*{match}.*\n", out), out
        assert self.posted() == before

    def posted(self) -> list[str]:
        """Return what we have said, in all comments of all pull requests."""
        said = [entry for comments in self.server.comments.values() for entry in comments]
        return [entry["body"] for entry in said if entry["user"]["login"] == ACTIONS]

    def refused(self, match: str, *arguments: str) -> None:
        """Run, and require one line of error that `match` finds and no comment."""
        before = self.posted()
        status, _, error = self.run(*arguments)
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
