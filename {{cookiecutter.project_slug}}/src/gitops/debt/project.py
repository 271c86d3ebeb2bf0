"""What the evidence is looked up in: results in the workspace, documents, the release log, and GitHub where it answers.

Whatever cannot be asked raises ProjectError, each time it is asked for: the score is "not known" then.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, read_json
from gitops.core.params import Params
from gitops.design import questions
from gitops.integrations import git, github, github_artifacts, github_runs
from gitops.integrations.github import GitHub
from gitops.releases import history, release
from gitops.releases.history import Released

WORKFLOWS = Path(".github/workflows")

#: What `make test` has left, in the format of JUnit.
TESTS = Path("build/tests.xml")

#: Newest runs of a workflow that are looked at.
RUNS = 5


@dataclass(frozen=True)
class Seen:
    """What was found of a test: 0 nothing, 0.5 a part or by hand, 1 all of it; and whether all that counts was seen."""

    value: float
    text: str
    known: bool = True


class Project:
    """The project in the working directory. `stale`: stages that are out of date, whose results do not count.

    `gate`: the gate's result, where it is being made; by default that of reports/gate.json.
    """

    def __init__(self, settings: Params, stale: list[str], gate: dict[str, Any] | None = None) -> None:
        self.settings, self.stale, self._gate = settings, stale, gate
        self._asked: dict[object, Any] = {}

    def result(self, path: Path, stage: str) -> Any:
        """Return the JSON file of a stage; None where there is none, or the stage is out of date."""
        return read_json(path, "make pipeline") if path.exists() and stage not in self.stale else None

    def written(self, path: Path) -> Any:
        """Return a JSON file that a command writes; None where there is none."""
        return read_json(path, "the command that wrote it") if path.exists() else None

    @property
    def gate(self) -> dict[str, Any] | None:
        """The gate's result; None where there is none of the model that is here."""
        found: dict[str, Any] | None = self._gate or self.written(artifacts.GATE)
        metrics = self.result(artifacts.METRICS, "evaluate")
        return found if found and metrics and found["model_sha256"] == metrics["model_sha256"] else None

    @property
    def monitored(self) -> dict[str, Any] | None:
        """The monitor's newest result: the one that lies here, else that of the workflow Monitor."""
        here: dict[str, Any] | None = self.written(artifacts.MONITOR)
        return here or self.once("monitored", self._monitored_on_github)

    def open_questions(self, path: Path, heading: str = "") -> list[str] | None:
        """Return the questions of a document (of one heading) that are open; None where it asks none there."""
        asked = [one for one in questions.read(path) if one.heading == heading or not heading]
        return [one.text for one in asked if one.answer is None] if asked else None

    def answered(self, path: Path, question: str) -> bool:
        """Tell whether a document's question is there and has an answer."""
        return any(one.text == question and one.answer is not None for one in questions.read(path))

    def passed(self, module: str, name: str = "") -> int | None:
        """Return how many tests of tests/test_MODULE.py (with that name) `make test` has passed here.

        0 where one of them has failed, None where it was not run since tests or code have changed.
        """
        if not TESTS.is_file():
            return None
        made = TESTS.stat().st_mtime
        if any(path.stat().st_mtime > made for folder in ("src", "tests") for path in Path(folder).rglob("*.py")):
            return None
        cases = [
            case
            for case in ElementTree.parse(TESTS).iter("testcase")  # noqa: S314 written by pytest, here
            if case.get("classname", "").endswith(f"test_{module}") and name in case.get("name", "")
        ]
        if any(case.find(outcome) is not None for case in cases for outcome in ("failure", "error")):
            return 0
        return sum(case.find("skipped") is None for case in cases)

    def defines(self, module: str, name: str = "") -> bool:
        """Tell whether tests/test_MODULE.py has a test (with that name)."""
        source = Path("tests", f"test_{module}.py")
        return source.is_file() and f"def test_{name.removeprefix('test_')}" in source.read_text(encoding="utf-8")

    def releases(self, environment: str = "production") -> list[Released]:
        """Return the release log of an environment, oldest first; empty where nothing was released."""
        return list(self.once(("releases", environment), lambda: _releases(environment)))

    def objects(self) -> list[dict[str, Any]]:
        """Return the Kubernetes objects of production's release."""
        return list(self.once("objects", self._objects))

    @property
    def github(self) -> GitHub:
        """GitHub's client. Raises ProjectError where it cannot be asked."""
        client: GitHub = self.once("github", github.connect)
        return client

    @property
    def unasked(self) -> str:
        """Why GitHub cannot be asked; empty where it can."""
        try:
            self.github  # noqa: B018 raises
        except ProjectError as error:
            return str(error)
        return ""

    def ask(self, path: str, **query: str | int) -> Any:
        """Return GitHub's answer to a GET, asked once."""
        return self.once((path, *query.items()), lambda: self.github.get(path, **query))

    def repeated(self, workflow: str, target: str) -> Seen:
        """Tell whether a workflow runs `make TARGET`, and has done so with success in one of its newest RUNS runs."""
        names = _steps(WORKFLOWS / workflow, f"make {target}")
        if not names:
            return Seen(0, f"no step of {workflow} is `make {target}`")
        try:
            ran = self.once(("ran", workflow), lambda: self._ran(workflow))
        except ProjectError:
            return Seen(0, f"whether {workflow} repeats it is not known", known=False)
        succeeded = [run for run, name, conclusion in ran if name in names and conclusion == "success"]
        if not succeeded:
            return Seen(0, f"`make {target}` has not succeeded in the newest runs of {workflow}")
        return Seen(1, f"`make {target}` succeeded in run {succeeded[0]} of {workflow}")

    def _ran(self, workflow: str) -> list[tuple[int, str, str | None]]:
        """Return the steps of a workflow's newest runs: the run's id, the step's name, and how it ended."""
        path = f"actions/workflows/{workflow}/runs"
        runs = self.ask(path, status="completed", per_page=RUNS)["workflow_runs"]
        own = [run for run in runs if (run["head_repository"] or {}).get("full_name") == self.github.repository]
        return [
            (int(run["id"]), str(step["name"]), step["conclusion"])
            for run in own[:RUNS]
            for job in github_runs.jobs(self.github, run)
            for step in job["steps"]
        ]

    def _objects(self) -> list[dict[str, Any]]:
        log = self.releases()
        present = history.deployed(log)
        files = release.manifests(present.periods[-1].start.commit) if present else {}
        return [one for content in files.values() for one in yaml.safe_load_all(content) if one]

    def _monitored_on_github(self) -> dict[str, Any] | None:
        self.github  # noqa: B018 raises where it cannot be asked
        with tempfile.TemporaryDirectory(prefix="monitor-") as folder:
            name = artifacts.MONITOR.name
            found = github_artifacts.download("monitor", Path(folder), [name])
            path = Path(folder, name)
            return dict(read_json(path, "make monitor")) if found and path.exists() else None

    def once(self, key: object, find: Callable[[], Any]) -> Any:
        """Return what `find` returns, or raise the ProjectError that it has raised; it is called once for each key."""
        if key not in self._asked:
            try:
                self._asked[key] = find()
            except ProjectError as error:
                self._asked[key] = error
        if isinstance(found := self._asked[key], ProjectError):
            raise found
        return found


def _releases(environment: str) -> list[Released]:
    tip = git.fetch(release.branch(environment)) if git.has_remote() else None
    entries = history.read(tip) if tip else []
    return history.releases(entries) if entries else []  # none before the first promotion is merged


def _steps(path: Path, command: str) -> set[str]:
    """Return the names of a workflow's steps that run this command alone."""
    try:
        jobs = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("jobs", {})
    except (FileNotFoundError, yaml.YAMLError):
        return set()
    return {
        step.get("name", "") for job in jobs.values() for step in job.get("steps", []) if step.get("run") == command
    }
