"""Reading of workflows and actions: what is not known, and what is not pinned, is an error."""

from __future__ import annotations

import copy
import functools
import re
from typing import TYPE_CHECKING, Any

import yaml
from workflow_expressions import UnknownError

if TYPE_CHECKING:
    from workflow_events import Event

#: The keys that are understood; YAML reads `on` as true.
KEYS: dict[str, set[Any]] = {
    "workflow": {"name", True, "permissions", "concurrency", "jobs"},
    "job": {
        *("name", "if", "needs", "runs-on", "environment", "concurrency", "timeout-minutes", "permissions", "outputs"),
        *("env", "steps"),
    },
    "environment": {"name", "deployment"},
    "step": {"name", "id", "if", "uses", "with", "run", "env", "continue-on-error", "timeout-minutes"},
    "action": {"name", "description", "inputs", "runs"},
}

#: The triggers that are understood, with their filters.
TRIGGERS = {
    "push": {"branches", "branches-ignore"},
    "merge_group": set[str](),
    "pull_request": {"branches", "types"},
    "workflow_run": {"workflows", "types"},
    "workflow_dispatch": {"inputs"},
    "schedule": {"cron"},
    "repository_dispatch": {"types"},
}

#: The kinds of an event that start a workflow which names none.
STARTING = [None, "opened", "synchronize", "reopened", "checks_requested"]


def parse(text: str, kind: str) -> dict[Any, Any]:
    """Read a workflow or an action. Raises UnknownError for a key that is not known, and an action that floats."""
    return copy.deepcopy(_parsed(text, kind))


@functools.cache
def _parsed(text: str, kind: str) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load(text)
    check_keys(document, kind)
    for used in uses(document):
        if used.startswith("./"):
            continue
        if not re.fullmatch(r"[^@]+@[0-9a-f]{40}", used) or not re.search(
            rf"(?m)^[ -]*uses: {re.escape(used)}  # v\d+(\.\d+)*( |$)", text
        ):
            raise UnknownError(f"{used}: not pinned by its commit, with its version behind it")
    return document


def uses(part: Any) -> list[str]:
    """Return every action that a workflow or an action names."""
    if isinstance(part, list):
        return [used for entry in part for used in uses(entry)]
    if not isinstance(part, dict):
        return []
    return [*([part["uses"]] if "uses" in part else []), *(used for entry in part.values() for used in uses(entry))]


def check_keys(mapping: dict[Any, Any], kind: str) -> None:
    """Raise UnknownError for a key that is not understood."""
    if unknown := set(mapping) - KEYS[kind]:
        raise UnknownError(f"{kind} {mapping.get('name')!r}: {', '.join(map(str, unknown))}: not known here")


def needs(job: dict[str, Any]) -> list[str]:
    """Return the jobs that a job waits for."""
    needed = job.get("needs", [])
    return [needed] if isinstance(needed, str) else needed


def started(workflow: dict[Any, Any], event: Event) -> bool:
    """Tell whether an event starts a workflow. Raises UnknownError for a trigger or filter that is not understood."""
    triggers: dict[str, Any] = workflow[True]
    for trigger, value in triggers.items():
        filters = {key for entry in value for key in entry} if trigger == "schedule" else value
        if trigger not in TRIGGERS or (unknown := set(filters or {}) - TRIGGERS[trigger]):
            raise UnknownError(
                f"{workflow['name']}: the trigger {trigger} with {unknown or 'anything'} is not known here"
            )
    if event.name not in triggers:
        return False
    filters = triggers[event.name] or {}
    if event.name == "schedule":
        return True
    if event.name == "push" and filters and not event.ref.startswith("refs/heads/"):
        return False  # with filters on branches alone no tag starts it
    pull = event.payload.get("pull_request")  # the filter is on the branch that it is to be merged into
    branch = pull["base"]["ref"] if pull else event.ref.removeprefix("refs/heads/")
    ended = event.payload.get("workflow_run", {}).get("name")
    return (
        any(fits(pattern, branch) for pattern in filters.get("branches", ["**"]))
        and not any(fits(pattern, branch) for pattern in filters.get("branches-ignore", []))
        and event.payload.get("action") in filters.get("types", STARTING)
        and ended in filters.get("workflows", [ended])
    )


def fits(pattern: str, branch: str) -> bool:
    """Tell whether a filter's pattern fits a branch: `*` is anything but a slash, `**` anything."""
    if re.search(r"[?+\[\]!]", pattern):
        raise UnknownError(f"the pattern {pattern!r} is not understood")
    parts = re.split(r"(\*\*|\*)", pattern)
    expression = "".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(expression, branch) is not None


def read_outputs(text: str) -> dict[str, str]:
    """Return what a step wrote to GITHUB_OUTPUT, as NAME=VALUE or as NAME<<END, lines, END."""
    outputs, lines = {}, iter(text.splitlines())
    for line in lines:
        if multiple := re.fullmatch(r"([\w-]+)<<(\S+)", line):
            outputs[multiple[1]] = "\n".join(iter(lambda: next(lines), multiple[2]))
        elif single := re.fullmatch(r"([\w-]+)=(.*)", line):
            outputs[single[1]] = single[2]
        else:
            raise UnknownError(f"GITHUB_OUTPUT: {line!r}")
    return outputs
