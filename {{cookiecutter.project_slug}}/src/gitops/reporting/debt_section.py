"""The report's section about technical debt: the ML Test Score, as a change against production's."""

from __future__ import annotations

from typing import Any

from gitops.rendering.markdown import code, details, plain, table
from gitops.reporting.context import Context

Result = dict[str, Any]

#: Releases whose score is shown, the newest ones.
RELEASES = 10


def debt(context: Context) -> str:
    """Return the score, what has changed since production's release by section, the cheapest points, all evidence."""
    found = context.debt
    if not found:
        return ""
    record = context.production.record if context.production else None
    before = record.debt if record else None
    parts = [f"### Technical debt\n\nML Test Score {found['score']:g} of 7, the lowest of four sections."]
    unknown = sum(not test["known"] for test in found["tests"])
    if unknown:
        parts[0] += f" Of the tests marked ?, {unknown} of 28, not all could be seen: what was not counts as not done."
    rows = [
        [plain(name), _points(before.get(name) if before else None), f"{value:g}", _why(name, found, record)]
        for name, value in found["sections"].items()
    ]
    parts.append(table(["section", "production", "candidate", "changed"], rows))
    steps = [f"- {one['gain']:g} by {code(one['command'])}: {', '.join(one['tests'])}" for one in found["cheapest"]]
    if steps:
        parts.append("The cheapest points:\n\n" + "\n".join(steps))
    if trend := [f"{plain(one['release'])} {one['score']:g}" for one in found["trend"][-RELEASES:]]:
        parts.append(f"Releases: {', '.join(trend)}.")
    tests = [
        [
            f"{test['value']:g}{'' if test['known'] else ' ?'}",
            plain(f"{test['id']}: {test['text']}"),
            plain(test["evidence"], 300),
        ]
        for test in found["tests"]
    ]
    parts.append(details("The 28 tests and their evidence", table(["points", "test", "evidence"], tests)))
    return "\n\n".join(parts)


def _why(section: str, found: Result, record: Any) -> str:
    """Return which tests of a section have other points than in production's record."""
    before = record.debt_tests if record else None
    if not before:
        return ""
    changed = [
        f"{test['text']} ({before[test['id']]:g} to {test['value']:g})"
        for test in found["tests"]
        if test["section"] == section and before.get(test["id"]) not in (None, test["value"])
    ]
    return plain("; ".join(changed), 500)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
