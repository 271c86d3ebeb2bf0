"""`make explore`: one HTML page of the table before any model, build/explore.html.

It reads the prepared splits, which DVC fetches or builds first, as `make pipeline` would. Where `prepare` refuses the
table, the page has the error, and the table as far as it can be read. The page itself is made in an environment of its
own (page.py), which gets files alone. It shows values of the table, so it is as confidential as that: it lies in
build/, which Git ignores, and no workflow uploads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo, relay
from gitops.core.params import Params
from gitops.exploration import raw
from gitops.exploration.context import CONTEXT, PAGE, RAW, Context
from gitops.integrations import git, git_command

PYTHON = Path(".venv/explore/bin/python")

#: The files of the splits, by name, in the order of time where there is one.
SPLITS = {path.stem: path for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST)}


def main() -> None:
    """Write the page. Raises ProjectError for settings that are wrong, and for a table that cannot be read at all."""
    git.is_repository()
    if not PYTHON.exists():
        raise ProjectError(f"{PYTHON} is missing: run `make explore`, which makes it")
    PAGE.unlink(missing_ok=True)  # a table that cannot be read must not leave the page of another one
    settings = params.load()
    error = _prepare()
    context = _prepared(settings) if error is None else _unprepared(settings, error)
    artifacts.write_json(CONTEXT, context)
    if relay([PYTHON, "-m", "gitops.exploration.page"], {**os.environ, "PYTHONPATH": "src"}):
        raise ProjectError("the page was not made, see above")
    if error is not None:
        echo(f"prepare refuses this table, and the page shows it as it is:\n{error}", error=True)
    echo(f"{PAGE}: open it in a browser; it shows values of the table, so treat it like the table")


def _prepare() -> str | None:
    """Bring the splits up to date; return why that was not possible, None where it was."""
    command = [sys.executable, "-m", "gitops.exploration.splits"]
    if relay(command, git_command.environment(DVC_NO_ANALYTICS="1")) == 0:
        return None
    # DVC's own output says that a stage failed. The stage itself says why, in its last lines.
    command = [sys.executable, "-m", f"{params.package()}.prepare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = done.stderr.rpartition("error: ")[2].strip()
    return reason if done.returncode and reason else "DVC cannot bring the splits up to date; what it printed says why"


def _prepared(settings: Params) -> Context:
    schema = artifacts.read_json(artifacts.SCHEMA, "make explore")
    return _context(settings, {name: str(path) for name, path in SPLITS.items()}, schema, {"rows": schema["rows"]})


def _unprepared(settings: Params, error: str) -> Context:
    try:
        found = raw.write(settings.data, RAW)
    except ProjectError as unreadable:
        raise ProjectError(error if settings.data.query is not None else str(unreadable)) from None
    more = {"error": error, "problems": found.problems, "rows": {"raw": found.rows, "read": found.read}}
    return _context(settings, {"table": str(RAW)}, None, more)


def _context(settings: Params, splits: dict[str, str], schema: dict[str, Any] | None, more: dict[str, Any]) -> Context:
    data = settings.data
    limits = settings.validate_data.model_dump()
    context: Context = {
        "model": settings.package.model_name,
        "path": data.path,
        "task": data.task,
        "target": data.target,
        "positive": data.positive,
        "id": data.id,
        "timestamp": data.timestamp,
        "dropped": data.left_out,
        "unseen": [name for name in data.drop if name in data.slices],
        "slices": data.slices,
        "redacted": settings.request_log.redact,
        "duplicates": data.duplicates,
        "max_categories": data.max_categories,
        "limits": {name: limits.get(name) for name in LIMITS},
        "splits": splits,
        "features": schema["features"] if schema else None,
        "classes": schema["target"]["classes"] if schema else None,
        "error": None,
        "problems": {},
    }
    return context | more


#: Limits of the section `validate_data`, which is the project's own, that the page names where they are exceeded.
LIMITS = ("max_duplicates", "max_conflicting_labels", "max_feature_drift", "max_label_drift")


if __name__ == "__main__":
    artifacts.run(main)
