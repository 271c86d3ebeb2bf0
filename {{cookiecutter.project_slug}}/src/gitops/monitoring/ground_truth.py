"""Requests of the log whose labels have come: what the model saw in production, and what was right.

Log and labels are data from outside: a line that is not what it should be is left out and counted, never an error.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gitops.monitoring import request_log
from gitops.monitoring.request_log import MASKED, Key


@dataclass(frozen=True)
class Labelled:
    """One instance: `mark` names it in data/appended.json."""

    mark: str
    time: datetime
    inputs: dict[str, Any]
    label: str


@dataclass
class Found:
    """Labelled instances, the oldest first, and how many others were left out, by reason."""

    rows: list[Labelled] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read(after: datetime | None, known: Container[str]) -> Found:
    """Return the labelled requests later than `after` whose marks are not `known`. Raises ProjectError."""
    found = Found()
    table, nameless = request_log.labels()
    if nameless:
        found.left_out["a label without a request or a value"] = nameless
    ids, instances, texts = (table[name].to_list() for name in ("request_id", "instance", "label"))
    labels: dict[Key, str] = dict(zip(zip(ids, instances, strict=True), texts, strict=True))
    if not labels or request_log.absent("REQUEST_LOG"):
        return found
    seen: set[str] = set()
    with request_log.opened("REQUEST_LOG") as place:
        for _, content in place.contents((".jsonl",)):
            for line in content.splitlines():
                try:
                    row = _row(line, labels)
                except ValueError as error:
                    found.left_out[str(error)] += 1
                    continue
                if row is None or row.mark in seen or row.mark in known:
                    continue
                if after is not None and row.time <= after:
                    found.left_out["the label came too late"] += 1
                    continue
                seen.add(row.mark)
                found.rows.append(row)
    found.rows.sort(key=lambda row: (row.time, row.mark))
    return found


def _row(line: bytes, labels: dict[Key, str]) -> Labelled | None:
    """Return what a line of the log says, None where it has no label. Raises ValueError with the reason to count."""
    try:
        entry = json.loads(line)
        inputs, key = entry.get("inputs"), (entry.get("request_id"), entry.get("instance", 0))
        if inputs is None or key not in labels:  # refused, or not labelled yet
            return None
        time = datetime.fromisoformat(entry["time"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("not a line of a request log") from None
    if not isinstance(inputs, dict):
        raise ValueError("not a line of a request log")
    if MASKED in inputs.values():
        raise ValueError("a value is masked")
    mark = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return Labelled(mark, time if time.tzinfo else time.replace(tzinfo=UTC), inputs, labels[key])
