"""`make debt`: the 28 tests of "The ML Test Score" (rubric.py), each with its evidence here; reports/debt.json.

A test has half a point where its evidence is found, and a full one where a workflow of GitHub was also seen to repeat
it with success. What cannot be seen is "not known" and counts as not done.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo, one_line
from gitops.core.params import Params
from gitops.debt import maturity
from gitops.debt.project import Project, Seen
from gitops.debt.rubric import RUN, SECTIONS, TABLE, Test
from gitops.integrations import dvc

Result = dict[str, Any]

#: What reading evidence raises that is damaged, or was written by another version; a report must not end by it.
UNREADABLE = (OSError, LookupError, TypeError, ValueError, SyntaxError, zipfile.BadZipFile)

#: Points that the summary says how to earn.
POINTS = 3.0


def main() -> None:
    """Write reports/debt.json and print the score, its evidence, its trend, the cheapest points and the maturity."""
    settings = params.load()
    project = Project(settings, dvc.stale())
    result = evaluate(project)
    artifacts.write_json(artifacts.DEBT, result)
    for section, value in result["sections"].items():
        echo(f"\n{section}: {value:g} of 7")
        for test in result["tests"]:
            if test["section"] == section:
                sign = "" if test["known"] else "?"
                echo(f"  {test['value']:>3g}{sign:1} {test['id']}: {test['text']} ({test['evidence']})")
    if project.unasked:
        echo(f"\nGitHub was not asked, so what it alone shows is not known (?): {project.unasked}")
    echo("\nThe cheapest points:")
    for step in result["cheapest"]:
        echo(f"  {step['gain']:g} by {step['command']} ({', '.join(step['tests'])})")
    if result["trend"]:
        echo("\nReleases: " + ", ".join(f"{one['release']} {one['score']:g}" for one in result["trend"]))
    echo(f"\n{maturity.summary(maturity.levels(Path()))}")
    echo(f"ML Test Score {result['score']:g} of 7, the lowest of the sections: {artifacts.DEBT}")


def evaluate(project: Project) -> Result:
    """Return the contents of reports/debt.json."""
    tests = [_scored(test, project) for test in TABLE]
    sections = {name: sum(test["value"] for test in tests if test["section"] == name) for name in SECTIONS.values()}
    return {
        "score": min(sections.values()),
        "sections": sections,
        "tests": tests,
        "cheapest": cheapest(tests, sections),
        "trend": history(project),
    }


def _scored(test: Test, project: Project) -> Result:
    """Return a test's entry in debt.json."""
    found = _look(test, project)
    value, known, text, step = found.value, found.known, found.text, test.complete
    if not value:
        step = test.first
    elif test.repeated:
        repeated = project.repeated(*test.repeated)
        known, text = known and repeated.known, f"{text}; {repeated.text}"
        if value == 1 and not repeated.value:
            value, step = 0.5, RUN[test.repeated[0]]
    if value == 1:
        step = None
    return {
        "id": test.id,
        "section": test.section,
        "text": test.text,
        "value": value,
        "evidence": one_line(text),
        "known": known,
        "next": {"command": step.command, "gain": 0.5, "effort": step.effort} if step else None,
    }


def _look(test: Test, project: Project) -> Seen:
    try:
        return test.evidence(project)
    except ProjectError as error:
        return Seen(0, f"not known: {error}", known=False)
    except UNREADABLE as error:
        return Seen(0, f"not known: its evidence cannot be read, {type(error).__name__} {error}", known=False)


def cheapest(tests: list[Result], sections: dict[str, float], points: float = POINTS) -> list[Result]:
    """Return the steps that earn the next `points`, the cheapest first, of those the ones of the lowest sections.

    A step that several tests wait for stands once, with all that it earns.
    """
    steps: dict[str, Result] = {}
    for test in tests:
        if step := test["next"]:
            entry = steps.setdefault(step["command"], step | {"gain": 0.0, "tests": [], "section": 7.0})
            entry["gain"] += step["gain"]
            entry["tests"].append(test["id"])
            entry["section"] = min(entry["section"], sections[test["section"]])
    found: list[Result] = []
    for entry in sorted(steps.values(), key=lambda one: (one["effort"], one["section"], -one["gain"])):
        if sum(one["gain"] for one in found) < points:
            found.append({name: entry[name] for name in ("command", "gain", "tests")})
    return found


def of(settings: Params, gate: Result | None = None) -> Result:
    """Return the score of the project in the working directory; `gate`: as for Project."""
    return evaluate(Project(settings, dvc.stale(), gate))


def recorded(result: Result) -> dict[str, Any]:
    """Return what a release record has of a score."""
    return {"debt": result["sections"], "debt_tests": {test["id"]: test["value"] for test in result["tests"]}}


def history(project: Project) -> list[Result]:
    """Return the score of each of production's releases that recorded one, the oldest first."""
    try:
        log = project.releases()
    except ProjectError:
        return []
    scores = [(one.record.title, one.record.debt) for one in log]
    return [{"release": title, "score": min(debt.values())} for title, debt in scores if debt]


if __name__ == "__main__":
    artifacts.run(main)
