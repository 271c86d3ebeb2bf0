"""A project as `make fleet` shows it: what its refs say, and what of that needs attention."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fleet_git import Repository, Unreadable

MAIN, PRODUCTION, MONITOR = "refs/heads/main", "refs/heads/env/production", "refs/monitor/last"

#: The sections of the debt score, in release.json.
SECTIONS = ("data", "model", "infrastructure", "monitoring")

#: What a run of the monitor can have found, in words.
STATUSES = {"ok": "none", "drift": "drift", "too_small": "too few rows", "invalid_requests": "invalid requests"}

#: The monitor runs once a day; after this it has failed, or is switched off.
SILENT = timedelta(days=2)

#: What JSON of any kind can raise while it is read.
DAMAGE = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


@dataclass
class Project:
    """What is known of a repository; None is not known. `problems` are what could not be read."""

    name: str
    link: str = ""  # to its page, where the URL is one
    problems: list[str] = field(default_factory=list)
    version: str | None = None  # of the template
    released: bool = False
    model: str | None = None
    model_version: str | None = None
    since: datetime | None = None  # when production was last changed
    debt: tuple[float, str] | None = None  # the lowest section's points, and its name
    status: str | None = None  # of the monitor's last run
    monitored: datetime | None = None
    monitored_model: str | None = None
    worth: tuple[float, float, float, str] | None = None  # a month: value, its 95 % interval, unit

    def attention(self, newest: str, now: datetime) -> list[tuple[int, str]]:
        """Return why somebody should look, each reason with its urgency, 0 the most urgent."""
        found = [(0, problem) for problem in self.problems]
        if self.status == "drift":
            found.append((1, "drift"))
        if self.worth and self.worth[2] < 0:
            found.append((1, "it costs more than it earns"))
        if self.monitored and now - self.monitored > SILENT:
            found.append((2, f"the monitor has not succeeded for {(now - self.monitored).days} days"))
        elif self.released and self.status is None and not self.problems:
            found.append((3, "not monitored"))
        if self.status == "invalid_requests":
            found.append((3, "many requests are invalid"))
        if not self.released and not self.problems:
            found.append((4, "nothing is released"))
        if self.version not in (newest, None):
            found.append((5, f"another version of the template than {newest}"))
        return found

    def urgency(self, newest: str, now: datetime) -> tuple[int, float, str]:
        """Return what projects are sorted by: the most urgent reason, then the debt score, then the name."""
        first = min((level for level, _ in self.attention(newest, now)), default=9)
        return first, self.debt[0] if self.debt else 0.0, self.name


def read(url: str, folder: Path) -> Project:
    """Return the project of the repository at `url`, of which what is needed is fetched into `folder`."""
    address = re.sub(r"//[^/@]*@", "//", url).rstrip("/").removesuffix(".git")
    project = Project("/".join(re.split(r"[/:]", address)[-2:]), address if address.startswith("https://") else "")
    repository = Repository(url, folder)
    try:
        refs = repository.fetch((MAIN, PRODUCTION, MONITOR))
    except Unreadable as error:
        project.problems.append(f"cannot be read: {error}")
        return project
    if MAIN not in refs:
        project.problems.append("it has no branch main")
    project.released = PRODUCTION in refs
    for ref, what, take in (
        (MAIN, "src/gitops/__init__.py", _template),
        (PRODUCTION, "release.json", _release),
        (MONITOR, "monitor.json", _monitor),
    ):
        if ref in refs:
            try:
                take(project, repository.file(ref, what), repository.time(ref))
            except Unreadable as error:
                project.problems.append(str(error))
            except DAMAGE:
                project.problems.append(f"{what} of {ref.removeprefix('refs/heads/')} is damaged")
    return project


def _template(project: Project, text: str, _: int) -> None:
    [project.version] = re.findall(r'^__version__ = "([^"\n]{1,40})"$', text, re.MULTILINE)


def _release(project: Project, text: str, seconds: int) -> None:
    project.since = datetime.fromtimestamp(seconds, UTC)
    release = json.loads(text)
    project.model, project.model_version = _text(release["model"]["name"]), _text(release["model"]["version"])
    if (debt := release.get("debt")) is not None:
        project.debt = min((_number(debt[name]), name) for name in SECTIONS)


def _monitor(project: Project, text: str, _: int) -> None:
    found = json.loads(text)
    status, model, time = found["status"], _text(found["model_version"]), datetime.fromisoformat(found["time"])
    if status not in STATUSES or time.tzinfo is None:
        raise ValueError(status)
    if (worth := found["value"]) is not None:
        value, low, high = (_number(worth[key]) for key in ("value", "low", "high"))
        project.worth = value, low, high, _text(worth["unit"])
    project.status, project.monitored, project.monitored_model = status, time.astimezone(UTC), model


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)
