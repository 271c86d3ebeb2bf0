"""The lines of the request log that the monitor judges.

What is judged already is kept beside the log, in `monitor-state.json`: how far into each file. There it outlives a
runner and a pod, needs no other storage, and goes where the log goes. Counted in bytes, not by time, it neither loses
a line that arrives late nor sees one twice.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.monitoring import request_log
from gitops.monitoring.request_log import Key, Place

if TYPE_CHECKING:
    import pandas as pd

STATE = "monitor-state.json"

Entry = dict[str, Any]


@dataclass
class Log:
    """What was read: lines of the release that are not judged yet, and older ones whose labels may have come since."""

    rows: list[Entry] = field(default_factory=list)
    older: list[Entry] = field(default_factory=list)
    refused: list[Entry] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)  # reason: lines
    other_versions: int = 0
    too_old: int = 0
    ends: dict[str, int] = field(default_factory=dict)  # file: bytes up to the end of its last whole line


def read(version: str, days: int, now: datetime, labelled: set[Key]) -> Log:
    """Read the log of the model `version` over the last `days`. Raises ProjectError where it cannot be read.

    Of the lines that were judged before, those are kept that `labelled` names. A last line without its end is left for
    the next run.
    """
    since = now - timedelta(days=days)
    log = Log()
    with request_log.opened("REQUEST_LOG") as place:
        judged = _state(place)

        def judged_wholly(name: str, size: int) -> bool:
            if labelled or judged.get(name) != size:
                return False
            log.ends[name] = size
            return True

        for name, content in place.contents((".jsonl",), since, judged_wholly):
            log.ends[name] = end = content.rfind(b"\n") + 1
            start = judged.get(name, 0)
            _take(log, content[:end], start if start <= end else 0, version, since, labelled)  # shorter: another file
    return log


def _take(log: Log, content: bytes, start: int, version: str, since: datetime, labelled: set[Key]) -> None:
    """Sort the lines of a file, those before the byte `start` being judged already."""
    place = 0
    for line in content.splitlines(keepends=True):
        new, place = place >= start, place + len(line)
        try:
            entry = _entry(line)
        except ValueError as error:
            log.broken[str(error)] += new
            continue
        if entry["model_version"] != version:
            log.other_versions += new
        elif entry["time"] < since:
            log.too_old += new
        elif "inputs" not in entry:
            log.refused += [entry] * new
        elif new:
            log.rows.append(entry)
        elif (entry["request_id"], entry["instance"]) in labelled:
            log.older.append(entry)


def _entry(line: bytes) -> Entry:
    """Return a line as a dictionary, its time parsed. Raises ValueError with a reason that names no value."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    for key in ("request_id", "model_version"):
        if not isinstance(entry.get(key), str):
            raise ValueError(f"no {key}")
    try:
        moment = datetime.fromisoformat(entry["time"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("no time in ISO 8601") from None
    entry["time"] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if "errors" in entry:
        if not isinstance(entry["errors"], list):
            raise ValueError("errors are no list")
        entry.pop("inputs", None)
    elif not isinstance(entry.get("inputs"), dict) or "prediction" not in entry:
        raise ValueError("neither inputs with a prediction nor errors")
    elif type(entry.setdefault("instance", 0)) is not int:
        raise ValueError("instance is no integer")
    return entry


def save(ends: dict[str, int], now: datetime) -> None:
    """Remember that the log is judged up to `ends`. Raises ProjectError where that cannot be written."""
    state = {"judged": ends, "at": now.isoformat()}
    with request_log.opened("REQUEST_LOG") as place:
        if place.local:
            artifacts.write_json(Path(place.root, STATE), state)
        else:  # an object is there wholly or not at all
            place.files.pipe_file(f"{place.root}/{STATE}", json.dumps(state).encode())


def labels(classes: list[str], days: int, now: datetime) -> pd.DataFrame:
    """Return the labels that have come, as logged.labels does: text where there are classes, else numbers."""
    import pandas as pd

    found, _ = request_log.labels(now - timedelta(days=days))
    try:
        return found if classes else found.assign(label=pd.to_numeric(found["label"]))
    except ValueError as error:
        raise ProjectError(f"a label that has come is no number: {error}") from error


def _state(place: Place) -> dict[str, int]:
    path = f"{place.root}/{STATE}"
    if not place.files.exists(path):
        return {}
    try:
        return {str(name): int(end) for name, end in json.loads(place.files.cat_file(path))["judged"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(f"{path} is broken: delete it, and the log is judged again from the start") from error
