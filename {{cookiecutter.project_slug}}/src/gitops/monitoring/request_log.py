"""The request log at the address in REQUEST_LOG: which of its lines a run reads, and which were evaluated before.

What the monitor keeps lies beside it, where it outlives a runner and a pod, needs no other storage and moves with the
log: in `monitor-state.json` how far the log was evaluated, as an offset into each JSON file and as the names of the
parquet files, and in `monitor.prom` its last metrics. Offsets are bytes, not times, so that a line that arrives late is
not lost and none is read twice; a parquet file keeps them, so compaction changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.addresses import locate, reached
from gitops.core.artifacts import ProjectError
from gitops.monitoring import log_files, log_listing, log_table
from gitops.monitoring.log_files import Folder
from gitops.monitoring.log_table import Lines

#: Where log and labels lie unless the environment says otherwise.
DEFAULTS = {"REQUEST_LOG": "requests", "LABELS": "labels"}

#: What the log holds in place of a value that must not be kept.
REDACTED = "redacted"

STATE = "monitor-state.json"

#: serving/server/drift_metrics.py reads it.
METRICS = "monitor.prom"

#: How often the log is listed anew where compaction has meanwhile taken files away.
TRIES = 3

Entry = dict[str, Any]


def address(variable: str) -> str:
    """Return the address in `variable`, or its default."""
    return os.environ.get(variable) or DEFAULTS[variable]


@contextmanager
def opened(variable: str) -> Iterator[Folder]:
    """Yield the folder at the address in `variable`. Any error inside the block becomes a ProjectError."""
    with reached(variable, address(variable)):
        files, root = locate(variable, address(variable))
        folder = Folder(variable, files, root.rstrip("/"))
        if folder.local and not files.isdir(root):
            raise ProjectError(f"{variable} is {address(variable)!r}: there is no such folder")
        yield folder


def absent(variable: str) -> bool:
    """Return whether `variable` is not set and its default folder does not exist."""
    return not os.environ.get(variable) and not Path(DEFAULTS[variable]).exists()


@dataclass
class Evaluated:
    """How far the log was evaluated: bytes of JSON files up to their last complete line, and parquet files."""

    offsets: dict[str, int] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)


@dataclass
class Read:
    """Lines of the log, how far it will have been evaluated with them, and what was read and what was not."""

    lines: Lines
    evaluated: Evaluated
    counts: dict[str, int]


@contextmanager
def read(since: datetime | None, *, old: bool = False, state: bool = True) -> Iterator[Read]:
    """Yield the lines of the log from `since` on, by the hours in its paths. Raises ProjectError.

    `state`: whether it matters which were evaluated before. Files of which all lines were are read only if `old`.
    An incomplete last line is left for the next run. Lines before `since` may be among them.
    """
    with opened("REQUEST_LOG") as folder:
        before = _state(folder) if state else Evaluated()
        for attempt in range(TRIES):
            with ExitStack() as stack:
                try:
                    found = stack.enter_context(_lines(folder, since, before, old))
                except FileNotFoundError:  # compaction has put a table in its place
                    if attempt == TRIES - 1:
                        raise
                    continue
                yield found
                return


@contextmanager
def _lines(folder: Folder, since: datetime | None, before: Evaluated, old: bool) -> Iterator[Read]:
    listing = log_listing.find(folder, since)
    done = {*before.tables} & {*listing.tables}
    tables = folder.tables(listing.tables)
    spans = log_files.uncovered(listing.lines, tables)
    now = Evaluated({}, listing.tables)
    seen = {name: end for name, end in before.offsets.items() if name not in listing.lines}
    wanted = {}
    for name, (start, size) in spans.items():
        end = before.offsets.get(name, 0)
        if end == size and not old:
            now.offsets[name] = size
        else:
            wanted[name] = (start, size)
            seen[name] = end if end <= size else 0  # shorter than before: another file
    seen |= {name: before.offsets.get(name, 0) for name in listing.lines if name not in spans}
    read_now = [table for table in tables if old or table.name not in done]
    with log_table.opened(folder, read_now, wanted, seen, frozenset(done)) as lines:
        now.offsets |= lines.ends | {name: start for name, (start, _) in wanted.items() if name not in lines.ends}
        now.offsets = dict(sorted(now.offsets.items()))
        counts = {
            "tables": len(read_now),
            "files": len(wanted),
            "evaluated": len(tables) - len(read_now) + len(spans) - len(wanted),
            "folders_skipped": listing.folders_skipped,
            "files_skipped": listing.files_skipped,
        }
        yield Read(lines, now, counts)


def summary(counts: dict[str, int]) -> str:
    """Return in a few words what was read of the log, and what was not."""
    return (
        f"Request log: read {counts['tables']} compacted and {counts['files']} other files; {counts['evaluated']} were "
        f"evaluated before; {counts['folders_skipped']} days or hours and {counts['files_skipped']} other files are "
        "older and were not opened"
    )


def save(evaluated: Evaluated, now: datetime) -> None:
    """Store how far the log is evaluated. Raises ProjectError where that cannot be written."""
    state = {"offsets": evaluated.offsets, "tables": evaluated.tables, "at": now.isoformat()}
    write(STATE, json.dumps(state, indent=2) + "\n")


def write(name: str, text: str) -> None:
    """Write a file beside the log, whole or not at all. Raises ProjectError where that is not possible."""
    with opened("REQUEST_LOG") as folder:
        if folder.local:
            artifacts.write_text(Path(folder.root, name), text)
        else:  # an object is written as a whole or not at all
            folder.files.pipe_file(f"{folder.root}/{name}", text.encode())


def _state(folder: Folder) -> Evaluated:
    """Return what `save` has stored; earlier versions named no tables."""
    path = f"{folder.root}/{STATE}"
    if not folder.files.exists(path):
        return Evaluated()
    try:
        stored = json.loads(folder.files.cat_file(path))
        offsets = {str(name): int(end) for name, end in stored["offsets"].items()}
        return Evaluated(offsets, [str(name) for name in stored.get("tables", [])])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(f"{path} is broken: delete it, and the log is evaluated again from its start") from error
