"""Locks that are old, and packages in them with known vulnerabilities.

pip-audit asks PyPI, or where OSV_URL is set that service (https://google.github.io/osv.dev/post-v1-query/), about each
pin of each lock. It is read strictly: a pin that it skips, that its answer lacks, or that it warns of is unknown.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gitops.debt.finding import DEPENDENCIES, Finding, found, unknown
from gitops.integrations import git

PIP_AUDIT = Path(".venv/debt/bin/pip-audit")

#: Days after which a lock is old.
OLD = 180

PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;\\]+)")

#: How pip-audit says that it leaves out a vulnerability that it does not understand.
SERVICE_WARNING = "WARNING:pip_audit._service"

#: The project itself, which is installed from its folder.
OWN = "-e ."


class Place(NamedTuple):
    """Where a pin stands."""

    file: Path
    line: int


class Answer(NamedTuple):
    """pip-audit's answer: the vulnerabilities by (name, version), why it skipped a name, and what else it told."""

    found: dict[tuple[str, str], list[dict[str, Any]]]
    skipped: dict[str, str]
    problems: list[str]


#: (name, version) -> where it stands, one place a lock.
Pins = dict[tuple[str, str], list[Place]]


def locks(folder: Path = Path("requirements")) -> list[Path]:
    """Return the locks: the environments' that the project has."""
    return sorted(folder.glob("*.txt"))


def old(files: list[Path], now: datetime | None = None) -> Iterator[Finding]:
    """Yield the locks that were last changed more than OLD days ago, by Git, which is asked about each."""
    now = now or datetime.now(UTC)
    full = git.is_repository() and git.run("rev-parse", "--is-shallow-repository") == "false"
    for file in files:
        committed = git.run("log", "-1", "--format=%ct", "--", file.as_posix()) if full else ""
        if not committed:
            yield unknown(DEPENDENCIES, "How old this lock is: Git's history here does not say when it changed", file)
            continue
        days = (now - datetime.fromtimestamp(int(committed), UTC)).days
        if days > OLD:
            text = f"Locked {days} days ago: `make lock ARGS=--upgrade` takes what is newer"
            yield found(DEPENDENCIES, text, file, 1)


def vulnerable(files: list[Path]) -> Iterator[Finding]:
    """Yield the known vulnerabilities of the pins in `files`, and what is not known."""
    pins, others = read(files)
    for place, text in others:
        yield unknown(DEPENDENCIES, f"Vulnerabilities of {text}: line {place.line} is no pin of a version", place.file)
    answer = _audit(pins)
    for problem in answer.problems:
        yield unknown(DEPENDENCIES, f"Vulnerabilities: {problem}")
    for (name, version), places in pins.items():
        for each in answer.found.get((name, version), ()):
            fixed = ", ".join(each["fix_versions"]) or "none yet"
            also = f"; also in {', '.join(str(place.file) for place in places[1:])}" if len(places) > 1 else ""
            text = f"{name} {version} has the vulnerability {each['id']}; fixed in: {fixed}{also}"
            yield found(DEPENDENCIES, text, *places[0])
    if missing := [pin for pin in pins if pin not in answer.found]:
        shown = ", ".join(map(" ".join, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        why = answer.skipped.get(missing[0][0], "it did not answer")
        text = f"Vulnerabilities of {len(missing)} of {len(pins)} packages: {shown}. pip-audit on the first: {why}"
        yield unknown(DEPENDENCIES, text)


def read(files: list[Path]) -> tuple[Pins, list[tuple[Place, str]]]:
    """Return the pins of the locks, names normalized (PEP 503), and the requirements that are none."""
    pins: Pins = {}
    others = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if match := PIN.match(line):
                places = pins.setdefault((normalized(match[1]), match[2]), [])
                if file not in [place.file for place in places]:
                    places.append(Place(file, number))
            elif line and not line.startswith(("#", " ")) and line.strip() != OWN:
                others.append((Place(file, number), line.split()[0]))
    return pins, others


def normalized(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _audit(pins: Pins) -> Answer:
    """Ask pip-audit about each pin.

    A run may name a package once, so the first version of each is in the first run, and so on.
    """
    runs: list[list[str]] = []
    seen: dict[str, int] = {}
    for name, version in pins:
        place = seen[name] = seen.get(name, -1) + 1
        runs += [[]] if place == len(runs) else []
        runs[place].append(f"{name}=={version}\n")
    whole = Answer({}, {}, [])
    for answer in map(_run, runs):
        problems = [problem for problem in answer.problems if problem not in whole.problems]
        whole = Answer(whole.found | answer.found, answer.skipped | whole.skipped, whole.problems + problems)
    return whole


def _run(requirements: list[str]) -> Answer:
    with tempfile.TemporaryDirectory(prefix="pip-audit-") as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("".join(requirements))
        command: list[str | Path] = [PIP_AUDIT, "--requirement", path, "--no-deps", "--disable-pip", "--format", "json"]
        command += ["--desc", "off", "--progress-spinner", "off", "--cache-dir", folder]
        if address := os.environ.get("OSV_URL"):
            command += ["--vulnerability-service", "osv", "--osv-url", address]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return Answer({}, {}, [f"{PIP_AUDIT} is missing: run `make debts`, which makes it"])
    return parse(done.stdout, done.stderr)


def parse(output: str, errors: str) -> Answer:
    """Return what pip-audit has written as JSON, and what it told besides of answers that it does not understand."""
    told = [line.partition(":")[2] for line in errors.splitlines() if line.startswith(SERVICE_WARNING)]
    answer = Answer({}, {}, told)
    try:
        for entry in json.loads(output)["dependencies"]:
            name = normalized(entry["name"])
            if "vulns" in entry:
                answer.found[name, entry["version"]] = entry["vulns"]
            else:
                answer.skipped[name] = entry["skip_reason"]
    except (ValueError, KeyError, TypeError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        return Answer({}, {}, [*told, f"pip-audit failed: {last[:200]}"])
    return answer
