"""Lines of the log that have no typed columns, judged one by one: damaged ones, and those of another form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from gitops.monitoring.log_table import Lines
from gitops.monitoring.request_ids import Uses

Entry = dict[str, Any]

#: A 64-bit column holds integers below it.
INTEGER = 2**63


def each(lines: Lines, unreadable: Counter[str]) -> Iterator[Entry]:
    """Yield each line of the log's form, with its `source`, `start` and `new`; count the new ones that are not."""
    for source, start, new, line in lines.raw():
        try:
            found = entry(line)
        except ValueError as error:
            unreadable[str(error)] += new
        else:
            yield found | {"source": source, "start": start, "new": new}


def entry(line: bytes) -> Entry:
    """Return a line as a dictionary, its time parsed. Raises ValueError with a reason that quotes no value."""
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
        entry["time"] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("no time in ISO 8601") from None
    if "errors" in entry:
        if not isinstance(entry["errors"], list):
            raise ValueError("errors are not a list")
        entry.pop("inputs", None)
    elif not isinstance(entry.get("inputs"), dict) or "prediction" not in entry:
        raise ValueError("neither inputs with a prediction nor errors")
    elif type(entry.setdefault("instance", 0)) is not int:
        raise ValueError("instance is not an integer")
    return entry


def storable(found: Entry) -> Entry:
    """Return an entry whose id and instance a column can hold: they come from clients, and are only counted."""
    instance = found["instance"] % INTEGER
    return found | {"request_id": unicode(found["request_id"]), "instance": instance}


def unicode(value: str) -> str:
    """Return a text with halves of surrogate pairs written out, which no file can hold."""
    return value.encode("utf-8", "backslashreplace").decode()


def refused_for(found: Entry) -> set[str | None]:
    """Return the columns that a request was refused for, None for the request as a whole."""
    problems = [problem for problem in found["errors"] if isinstance(problem, dict)]
    columns = (problem.get("column") for problem in problems)
    return {unicode(column) if isinstance(column, str) else None for column in columns} or {None}


def tell(uses: Uses, found: Entry, others: set[str]) -> None:
    """Let `uses` know of an entry; its id joins `others` if a labelled request has it."""
    if found["request_id"] in uses.ids:
        uses.add(found)
        others.add(found["request_id"])
