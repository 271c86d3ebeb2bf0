"""What GitHub's API says of a run's jobs: which failed, and where the minutes went. Names in it are untrusted."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from gitops.rendering.markdown import defang, details, plain, table

#: Conclusions of jobs and steps that failed.
FAILED = ("failure", "timed_out", "cancelled", "startup_failure")

#: Failed jobs that are listed, and the longest steps of a job.
JOBS, STEPS = 20, 3


def failures(conclusion: str, jobs: list[dict[str, Any]]) -> str:
    """Return which jobs of a run failed, and in which step."""
    lines = []
    for job in jobs:
        if job["conclusion"] in FAILED:
            step = next((step["name"] for step in job["steps"] or [] if step["conclusion"] in FAILED), None)
            at = f", in step {_name(step)}" if step else ""
            lines.append(f"- [{_name(job['name'])}]({job['html_url']}){at}")
    more = [f"- and {len(lines) - JOBS} more"] if len(lines) > JOBS else []
    return f"## ❌ The run's conclusion: {conclusion.replace('_', ' ')}\n\n" + "\n".join(lines[:JOBS] + more)


def minutes(jobs: list[dict[str, Any]]) -> str:
    """Return a folded table of the minutes of each job and its longest steps; nothing where none has run."""
    rows, total = [], 0
    for job in jobs:
        seconds = _seconds(job)
        if seconds is None or job["conclusion"] == "skipped":
            continue
        billed = max(1, -(-seconds // 60))
        total += billed
        steps = [(took, step["name"]) for step in job["steps"] or [] if (took := _seconds(step))]
        longest = sorted(steps, key=lambda step: -step[0])[:STEPS]
        rows.append([_name(job["name"]), str(billed), ", ".join(f"{_name(name)} {took} s" for took, name in longest)])
    if not rows:
        return ""
    summary = f"{total} {'minute' if total == 1 else 'minutes'}, each job rounded up, as GitHub bills its own runners"
    return details(summary, table(["job", "minutes", "longest steps"], rows))


def _name(text: object) -> str:
    return defang(plain(text, 60))


def _seconds(timed: dict[str, Any]) -> int | None:
    """Return how long a job or step took; None where it has not run."""
    with suppress(KeyError, TypeError, ValueError):
        start, end = (datetime.fromisoformat(timed[name]) for name in ("started_at", "completed_at"))
        return max(0, round((end - start).total_seconds()))
    return None
