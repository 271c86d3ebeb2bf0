"""`make record-monitor`: record on origin what the monitor's last run has found, for who looks at many repositories.

The ref LAST holds one small file, its status, time and value: numbers and names, and no value of a row. It is no
branch, so clones and GitHub do not show it, and no environment's branch is touched. Each commit stands on the one
before, and none is pushed by force: of two runs that race the newer one remains.

In a workflow this is a job of its own, with a token that can write: only the standard library is imported, and
reports/monitor.json is data.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import MONITOR, ProjectError, run
from gitops.core.console import echo
from gitops.integrations import git

LAST = "refs/monitor/last"

#: The file in its commits.
FILE = "monitor.json"

#: What a run can have found (monitor.py).
STATUSES = ("ok", "drift", "too_small", "invalid_requests")

#: Bytes of reports/monitor.json at most, and pushes that other runs may win before this one gives up.
LIMIT, TRIES = 10_000_000, 3

VERSION = re.compile(r"[\w.-]{1,64}", re.ASCII)
UNIT = 20  # characters of an amount's unit, as params.yaml limits it


def main() -> int:
    """Record reports/monitor.json."""
    if MONITOR.is_symlink() or (MONITOR.exists() and MONITOR.stat().st_size > LIMIT):
        raise ProjectError(f"{MONITOR} is no result of the monitor's: a file of at most {LIMIT} bytes is needed")
    found = summary(artifacts.read_json(MONITOR, "make monitor"))
    echo(f"{LAST} of {git.REMOTE}: {'recorded' if record(found) else 'a newer run is recorded already'}")
    return 0


def summary(result: Any) -> dict[str, Any]:
    """Return `status`, `time`, `model_version`, `rows` and `value` of the monitor's result, and nothing else of it.

    `value` is what the answers were worth a month, {value, low, high, unit}, or None. Raises ProjectError for what no
    monitor writes.
    """
    try:
        worth = result.get("value")
        if worth is not None and worth["model"] is not None:
            worth = {key: _number(worth["model"][key]) for key in ("value", "low", "high")} | {
                "unit": str(worth["unit"])[:UNIT]
            }
        else:
            worth = None
        found = {
            "status": result["status"],
            "time": _time(result["time"]).isoformat(timespec="seconds"),
            "model_version": result["model_version"],
            "rows": int(_number(result["rows"])),
            "value": worth,
        }
        if found["status"] not in STATUSES or not VERSION.fullmatch(found["model_version"]):
            raise ValueError("its status or its model's version")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ProjectError(f"{MONITOR} is no result of the monitor's ({error}): run `make monitor` again") from None
    return found


def record(found: dict[str, Any]) -> bool:
    """Push a summary to LAST of origin; False where that holds one of the same time or later. Raises ProjectError."""
    text = json.dumps(found, indent=2).encode() + b"\n"
    for left in reversed(range(TRIES)):
        seen = _fetch()
        if seen and _recorded(seen) >= _time(found["time"]):
            return False
        commit = git.write_commit(git.write_tree({FILE: text}), seen, f"Monitor: {found['status']}")
        try:
            git.run("push", "--quiet", git.REMOTE, f"{commit}:{LAST}")
        except git.GitError as error:
            if not left or _fetch() == seen:  # no other run has won: the push itself is refused
                raise ProjectError(f"{LAST} of {git.REMOTE} cannot be written: {error}") from error
        else:
            return True
    raise AssertionError  # the last attempt returned or raised


def _fetch() -> str | None:
    """Return the commit of LAST on origin, or None where there is none."""
    if not git.run("ls-remote", git.REMOTE, LAST):
        return None
    git.run("fetch", "--quiet", "--no-tags", git.REMOTE, f"+{LAST}:{LAST}")
    return git.run("rev-parse", LAST)


def _recorded(commit: str) -> datetime:
    """Return the time that a commit of LAST records; the beginning of time where it is damaged."""
    try:
        return _time(json.loads(git.run("show", f"{commit}:{FILE}"))["time"])
    except (git.GitError, KeyError, TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return value


if __name__ == "__main__":
    run(main)
