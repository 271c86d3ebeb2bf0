"""The default project as a repository on the stand-in for GitHub: its own commands, and results that are had sooner."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_api import connect, server_of
from workflow_hub import Hub
from workflow_project import Project
from workflow_runner import Run, deliver

#: These settings mean less, which is of no matter here.
QUICK = {"epochs: 200": "epochs: 40"}

#: A job whose steps have been run before for the same code.
TESTED = {"test": "success"}


@dataclass
class RealProject(Project):
    """The default project on all sides."""

    counted: int = 0  # trainings that `trainings` has returned

    def change(self, branch: str, settings: str = "", to: str = "origin", who: str = "maintainer", **files: str) -> str:
        """Commit another number of epochs, "epochs: 20", or new files to a branch; push it and return the commit."""
        self.branch(branch)
        if settings:
            params = (self.clone / "params.yaml").read_text()
            (self.clone / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", f"  {settings}", params))
        return super().change(branch, to=to, who=who, **files)

    def edit(self, branch: str, *edits: tuple[str, str, str], to: str = "origin") -> str:
        """Commit edits (file, old, new) to a branch, which may be new, push it and return the commit."""
        self.branch(branch)
        for name, old, new in edits:
            text = (self.clone / name).read_text()
            assert text.count(old) == 1, (name, old)
            (self.clone / name).write_text(text.replace(old, new))
        commit = super().change(branch, to=to)
        self.git("switch", "--quiet", "main")
        return commit

    def tested(self) -> list[Run]:
        """Run what was pushed but for the job `test`."""
        return deliver(self.hub, assume=TESTED)

    def comment(self, number: int, mark: str = "") -> str:
        """Return the one comment on a pull request whose text holds `mark`."""
        [body] = [str(entry["body"]) for entry in self.api.comments[number] if mark in entry["body"]]
        return body

    def record(self, environment: str = "production") -> Any:
        """Return the release record of an environment, or None."""
        there = self.hub.git("for-each-ref", f"refs/heads/env/{environment}")
        files = self.hub.git("ls-tree", "--name-only", f"env/{environment}").split() if there else []
        return json.loads(self.hub.git("show", f"env/{environment}:release.json")) if "release.json" in files else None

    def trainings(self) -> int:
        """Return how often a job of the hub's runs has trained since the last time."""
        outputs = [step.output for run in self.hub.runs for job in run.jobs.values() for step in job.steps]
        count = sum(output.count("Running stage 'train'") for output in outputs)
        new, self.counted = count - self.counted, count
        return new

    def requests(self, folder: Path) -> dict[str, str]:
        """Write a request log and its labels, of rows like the table's; return the variables that name them."""
        [md5] = re.findall("md5: (.{32})", (self.clone / "data/raw.csv.dvc").read_text())
        return log_requests(folder, self.clone / "dvc-remote/files/md5" / md5[:2] / md5[2:])


def log_requests(folder: Path, table: Path) -> dict[str, str]:
    """Write a request log and its labels, of rows that are like the table's; return the variables that name them."""
    lines = table.read_text().splitlines()
    columns = lines[0].split(",")
    entries, labels = [], ["request_id,label"]
    for place, line in enumerate(lines[1:101]):
        row = dict(zip(columns, line.split(","), strict=True))
        labels.append(f"r{place},{row.pop('diagnosis')}")
        inputs = {name: float(value) * 1.001 for name, value in row.items()}
        entry = {"time": "2026-11-01T12:00:00Z", "request_id": f"r{place}", "instance": 0, "inputs": inputs}
        entries.append(json.dumps(entry))
    for name, content in (("requests/a.jsonl", entries), ("labels/a.csv", labels)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("\n".join(content) + "\n")
    return {"REQUEST_LOG": str(folder / "requests"), "LABELS": str(folder / "labels")}


@contextmanager
def real_project(folder: Path, generated: Path) -> Iterator[RealProject]:
    """Yield the repository of a generated project with its DVC remote in it, and nothing pushed yet."""
    origin = folder / "origin.git"
    params = (generated / "params.yaml").read_text()
    for old, new in QUICK.items():
        assert params.count(old) == 1
        params = params.replace(old, new)
    (generated / "params.yaml").write_text(params)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", origin], check=True)
    hub = Hub(folder / "hub", origin)
    with server_of(folder, hub) as server:
        connect(hub, server)
        project = RealProject(hub, generated, folder, server)
        project.git("commit", "--quiet", "--all", "--message", "Be quick")
        project.git("remote", "add", "origin", str(origin))
        yield project
