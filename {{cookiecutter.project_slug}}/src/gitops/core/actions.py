"""A command's input from GitHub Actions and output to it; outside Actions there is neither.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/variables and .../workflow-commands
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def head() -> str | None:
    """Return the newest commit of the pull request that started this run, or None.

    The commit that is checked out is GitHub's test merge, which does not exist after the real merge.
    """
    sha = _pull_request().get("head", {}).get("sha")
    return str(sha) if sha else None


def summarise(markdown: str) -> None:
    """Append `markdown` to the summary on the run's page."""
    _append("GITHUB_STEP_SUMMARY", f"{markdown}\n")


def output(values: dict[str, str]) -> None:
    """Pass `values` to later steps as outputs of this one."""
    delimiter = uuid.uuid4().hex  # a value cannot contain its own delimiter
    _append("GITHUB_OUTPUT", "".join(f"{name}<<{delimiter}\n{value}\n{delimiter}\n" for name, value in values.items()))


def _pull_request() -> dict[str, Any]:
    event = os.environ.get("GITHUB_EVENT_PATH")
    found = json.loads(Path(event).read_text(encoding="utf-8")).get("pull_request") if event else None
    return found or {}


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable):
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
