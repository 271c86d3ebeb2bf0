"""Shared by the tests of retraining: an origin with a table, requests and labels; stand-ins for DVC and training.

A model is a digest of its inputs; git, the branches and the pull requests are real.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from breast_cancer.metrics import METRICS
from github_server import GitHub
from gitops.core import params
from gitops.core.artifacts import APPENDED, GATE, RETRAIN, digest, write_json
from gitops.gate import gate
from gitops.integrations import dvc, git, github
from gitops.reporting import report, sections
from gitops.reporting.context import Context
from gitops.retraining import candidate, handover, pipeline, proposals, propose, trigger
from gitops.tabular import parts
from releases import Job

TABLE = "x,note,day,y\n" + "".join(
    f"{place}.5,{'a' if place % 3 else 'b'},2026-01-{1 + place % 28:02d},{'yes' if place % 2 else 'no'}\n"
    for place in range(40)
)


@contextlib.contextmanager
def on_github(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """Put GitHub in front of the origin, for as long as the block runs."""
    folder.mkdir()
    with GitHub(folder) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(github, "PAUSE", 0)
        yield made


class Bench:
    """An origin, and retrainings of it: each in a fresh clone, as `make retrain` gives each a fresh working tree."""

    def __init__(self, origin: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.origin, self.folder, self.monkeypatch = origin, folder, monkeypatch
        self.cache = folder / "cache"
        self.cache.mkdir()
        self.runs = 0
        self.accepted = True
        self.seed = Job(origin, folder / "person")
        self.commit(TABLE.encode())
        for name, address in (("REQUEST_LOG", "requests"), ("LABELS", "labels")):
            (folder / address).mkdir()
            monkeypatch.setenv(name, str(folder / address))
        for name in ("FORCE", "MONITOR", "GITHUB_TOKEN", "GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(dvc, "pull", self._pull)
        monkeypatch.setattr(dvc, "add", self._add)
        monkeypatch.setattr(dvc, "tracked_objects", lambda md5s: [])
        monkeypatch.setattr(dvc, "cached", lambda md5: self.cache / md5)
        monkeypatch.setattr(pipeline, "main", self._train)
        monkeypatch.setattr(gate, "evaluate", self._judge)
        monkeypatch.setattr(report, "main", lambda: None)
        monkeypatch.setattr(candidate, "body", self._body)

    def commit(self, table: bytes, name: str = "raw.csv", **settings: Any) -> None:
        """Put a table on main as its newest version, with settings of `data`."""
        path = self.seed.path / "params.yaml"
        values = yaml.safe_load(path.read_text())
        values["data"] |= {"path": f"data/{name}", **settings}
        metric = next(iter(METRICS[values["data"]["task"]]))
        values["gate"] = {"primary_metric": metric, "thresholds": {metric: 0.5}}
        path.write_text(yaml.safe_dump(values))
        (self.seed.path / "data" / name).write_bytes(table)
        with contextlib.chdir(self.seed.path):
            if not parts.FOLDER.exists():
                parts.FOLDER.mkdir()
                self._add(parts.FOLDER)
            self._add(Path("data") / name)
        (self.seed.path / "data" / name).unlink()
        self.seed.merge(f"Table {name}")

    def ask(self, request: str, label: str | None, on: int = 1, client: Any = None, **inputs: Any) -> None:
        """Log a request of a day in November, whose label has come or has not."""
        values = {"x": 1.5, "note": "a", "day": "2026-02-01"} | inputs
        entry = {"time": f"2026-11-{on:02d}T12:00:00.000Z", "request_id": request, "instance": 0, "inputs": values}
        if client is not None:
            entry["client"] = client
        self.log(json.dumps(entry | {"model_version": "0" * 12, "prediction": {}}))
        if label is not None:
            self.label(request, label)

    def log(self, line: str) -> None:
        with (self.folder / "requests/log.jsonl").open("a") as file:
            file.write(f"{line}\n")

    def label(self, request: str, label: str) -> None:
        path = self.folder / "labels/labels.csv"
        if not path.exists():
            path.write_text("request_id,label\n")
        with path.open("a") as file:
            file.write(f"{request},{label}\n")

    def run(self, why: str = "drift", *, forced: bool = False) -> int:
        """Retrain in a fresh clone of main, and return the exit status."""
        self.runs += 1
        self.job = Job(self.origin, self.folder / f"run-{self.runs}")
        with contextlib.chdir(self.job.path):
            return candidate.retrain(params.load(), trigger.reason(why), forced=forced)

    def in_workflow(self, why: str = "drift", *, forced: bool = False) -> dict[str, str]:
        """Retrain in a job of a workflow, whose token may only read; return the job's outputs that say something."""
        output = self.folder / "output"
        output.unlink(missing_ok=True)
        with self.monkeypatch.context() as patch:
            patch.setenv("GITHUB_ACTIONS", "true")
            patch.setenv("GITHUB_OUTPUT", str(output))
            patch.setattr(git, "_push", lambda *_: pytest.fail("pushed"))
            assert self.run(why, forced=forced) == 0
        return {name: value for name, value in re.findall(r"(\w+)<<\w+\n(.*)\n", output.read_text()) if value}

    def propose(self) -> int:
        """Run `make propose` in a clone of main of its own, with what the last retraining has left."""
        self.runs += 1
        job = Job(self.origin, self.folder / f"run-{self.runs}")
        shutil.copytree(self.job.path / handover.FOLDER, job.path / handover.FOLDER, symlinks=True)
        with contextlib.chdir(job.path), self.monkeypatch.context() as patch:
            patch.setenv("GITHUB_ACTIONS", "true")
            return propose.main()

    def branches(self) -> dict[str, str]:
        """Return the tree of each proposal on origin."""
        listed = self.seed.git(
            "for-each-ref", "--format=%(refname:short) %(tree)", "refs/heads/retrain", at=self.origin
        )
        return dict(line.split() for line in listed.splitlines())

    def table(self) -> bytes:
        """Return the table that the only proposal names, without the parts that are appended to it."""
        (branch,) = self.branches()
        return (self.cache / self._md5(self.show(branch, f"data/{self.name()}.dvc"))).read_bytes()

    def parts(self) -> list[bytes]:
        """Return the parts that the only proposal appends to the table, those of earlier retrainings too."""
        (branch,) = self.branches()
        listing = (self.cache / self._md5(self.show(branch, "data/appended.dvc"))).read_text()
        md5s = {file["relpath"]: file["md5"] for file in json.loads(listing)}
        return [
            (self.cache / md5s[name]).read_bytes() for name in json.loads(self.show(branch, str(APPENDED)))["files"]
        ]

    def appended(self) -> str:
        """Return what follows the header in each part."""
        return "".join(part.decode().split("\n", 1)[1] for part in self.parts())

    def name(self) -> str:
        return Path(params.load(self.seed.path / "params.yaml").data.path).name

    def show(self, branch: str, name: str) -> str:
        return self.seed.git("show", f"{branch}:{name}", at=self.origin)

    def merge(self) -> None:
        """Merge the only proposal, as a person does."""
        (branch,) = self.branches()
        self.seed.git("pull", "--quiet", "--no-edit", "--no-rebase", "origin", "main", branch)
        self.seed.git("push", "--quiet", "origin", "HEAD:main")
        self.seed.git("push", "--quiet", "origin", f":refs/heads/{branch}")

    def _pull(self, path: Path) -> None:
        md5 = self._md5(path.with_name(f"{path.name}.dvc").read_text())
        files = {path: md5}
        if md5.endswith(".dir"):
            path.mkdir()
            files = {path / file["relpath"]: file["md5"] for file in json.loads((self.cache / md5).read_text())}
        for file, its in files.items():
            shutil.copyfile(self.cache / its, file)

    def _add(self, path: Path) -> None:
        md5 = self._keep(path)
        path.with_name(f"{path.name}.dvc").write_text(f"outs:\n- md5: {md5}\n  path: {path.name}\n")

    def _keep(self, path: Path) -> str:
        """Put a file or folder into the cache as DVC does, and return its md5."""
        if path.is_dir():
            listing = [{"md5": self._keep(file), "relpath": file.name} for file in sorted(path.iterdir())]
            text = json.dumps(listing).encode()
            md5 = f"{hashlib.md5(text, usedforsecurity=False).hexdigest()}.dir"
            (self.cache / md5).write_bytes(text)
            return md5
        md5 = digest(path, "md5")
        shutil.copyfile(path, self.cache / md5)
        return md5

    def _md5(self, pointer: str) -> str:
        return re.findall(r"outs:\n- md5: (\S+)", pointer)[0]

    def _train(self) -> int:
        pointers = sorted(Path("data").glob("*.dvc"))
        text = "".join(path.read_text() for path in [*pointers, Path("params.yaml")])
        self.job.train(hashlib.sha256(text.encode()).hexdigest())
        Path("dvc.lock").write_text(text)
        return 0

    def _judge(self, settings: params.Params) -> dict[str, Any]:
        told = {"accepted": self.accepted, "reason": "Accepted." if self.accepted else "Refused: worse."}
        write_json(GATE, told)
        return told

    def _body(self, settings: params.Params) -> str:
        context = Context(settings, [], None, retraining=json.loads(RETRAIN.read_text()))
        return sections.join(context, (sections.review, sections.retraining))

    def last(self) -> str:
        """Return the commit by which origin remembers the newest retraining."""
        return self.seed.git("rev-parse", proposals.LAST, at=self.origin)

    def refusal(self) -> str:
        return self.seed.git("log", "-1", "--format=%B", proposals.LAST, at=self.origin)
