"""The request log: its files, in a folder or at any address that fsspec knows (s3://bucket/prefix), and its new lines.

What the monitor keeps lies beside it, where it outlives a runner and a pod, needs no other storage and moves with the
log: in `monitor-state.json` how far the log was evaluated, as an offset into each file, and in `monitor.prom` its last
metrics. Offsets are bytes, not times, so that a line that arrives late is not lost and none is read twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gitops.core import artifacts
from gitops.core.addresses import locate, reached
from gitops.core.artifacts import ProjectError
from gitops.monitoring.request_ids import Key, Uses

#: Where log and labels lie unless the environment says otherwise.
DEFAULTS = {"REQUEST_LOG": "requests", "LABELS": "labels"}

#: What the log holds in place of a value that must not be kept.
REDACTED = "redacted"

STATE = "monitor-state.json"

#: serving/server/drift_metrics.py reads it.
METRICS = "monitor.prom"

#: How many files are read at once, and of how many bytes together; a larger file is read alone. A bucket's log has very
#: many small objects, one for each ten seconds of each server.
FILES, BYTES = 64, 2**25

Entry = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """What an address names: a file system of fsspec's, and the path of a folder there."""

    variable: str
    files: Any
    root: str

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "file" in ([self.files.protocol] if isinstance(self.files.protocol, str) else self.files.protocol)

    def contents(
        self, endings: tuple[str, ...], since: datetime | None = None, skip: Callable[[str, int], bool] | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of the files with one of the endings, sorted by name.

        Left out are files last written before `since`, and those for whose name and size `skip` returns True.
        """
        found = self.files.find(self.root, detail=True)
        wanted = {
            path: int(found[path]["size"])
            for path in sorted(found)
            if path.endswith(endings)
            if since is None or self.files.modified(path) >= since
            if skip is None or not skip(self._name(path), int(found[path]["size"]))
        }
        with tqdm(total=len(wanted), desc=self.variable, unit="file", disable=None) as progress:
            for paths in _chunks(wanted):
                for path, content in zip(paths, self.files.cat_ranges(paths, None, None), strict=True):
                    if isinstance(content, Exception):
                        raise content
                    yield self._name(path), content
                progress.update(len(paths))

    def _name(self, path: str) -> str:
        return path.removeprefix(self.root).lstrip("/")


def _chunks(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yield the paths in order, as many at a time as FILES and BYTES allow."""
    chunk: list[str] = []
    total = 0
    for path, size in sizes.items():
        if chunk and (len(chunk) == FILES or total + size > BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(path)
        total += size
    if chunk:
        yield chunk


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
class Log:
    """Lines of a release: those not evaluated yet, and older ones whose labels may have arrived since."""

    rows: list[Entry] = field(default_factory=list)
    older: list[Entry] = field(default_factory=list)
    refused: list[Entry] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)  # reason: lines
    other_versions: int = 0
    too_old: int = 0
    offsets: dict[str, int] = field(default_factory=dict)  # file: bytes up to the end of its last complete line
    reused: set[str] = field(default_factory=set)  # ids of labelled requests that were sent again


def read(version: str, days: int, now: datetime, labelled: set[Key]) -> Log:
    """Read the log of the model `version` over the last `days`. Raises ProjectError where it cannot be read.

    Of the lines that were evaluated before, only those in `labelled` are returned. An incomplete last line is left for
    the next run.
    """
    since = now - timedelta(days=days)
    log, uses = Log(), Uses(labelled)
    log.reused = uses.reused
    with opened("REQUEST_LOG") as folder:
        evaluated = _offsets(folder)

        def evaluated_fully(name: str, size: int) -> bool:
            if labelled or evaluated.get(name) != size:
                return False
            log.offsets[name] = size
            return True

        for name, content in folder.contents((".jsonl",), since, evaluated_fully):
            log.offsets[name] = end = content.rfind(b"\n") + 1
            start = evaluated.get(name, 0)
            if start > end:  # shorter than before: another file
                start = 0
            _add_lines(log, content[:end], start, version, since, labelled, uses)
    return log


def _add_lines(
    log: Log, content: bytes, start: int, version: str, since: datetime, labelled: set[Key], uses: Uses
) -> None:
    """Add the lines of a file to the log. Those before the offset `start` were evaluated already."""
    offset = 0
    for line in content.splitlines(keepends=True):
        new, offset = offset >= start, offset + len(line)
        try:
            entry = _entry(line)
        except ValueError as error:
            log.unreadable[str(error)] += new
            continue
        uses.add(entry)
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
    except (KeyError, TypeError, ValueError):
        raise ValueError("no time in ISO 8601") from None
    entry["time"] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if "errors" in entry:
        if not isinstance(entry["errors"], list):
            raise ValueError("errors are not a list")
        entry.pop("inputs", None)
    elif not isinstance(entry.get("inputs"), dict) or "prediction" not in entry:
        raise ValueError("neither inputs with a prediction nor errors")
    elif type(entry.setdefault("instance", 0)) is not int:
        raise ValueError("instance is not an integer")
    return entry


def save(offsets: dict[str, int], now: datetime) -> None:
    """Store that the log is evaluated up to `offsets`. Raises ProjectError where that cannot be written."""
    write(STATE, json.dumps({"offsets": offsets, "at": now.isoformat()}, indent=2) + "\n")


def write(name: str, text: str) -> None:
    """Write a file beside the log, whole or not at all. Raises ProjectError where that is not possible."""
    with opened("REQUEST_LOG") as folder:
        if folder.local:
            artifacts.write_text(Path(folder.root, name), text)
        else:  # an object is written as a whole or not at all
            folder.files.pipe_file(f"{folder.root}/{name}", text.encode())


def _offsets(folder: Folder) -> dict[str, int]:
    path = f"{folder.root}/{STATE}"
    if not folder.files.exists(path):
        return {}
    try:
        return {str(name): int(end) for name, end in json.loads(folder.files.cat_file(path))["offsets"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(f"{path} is broken: delete it, and the log is evaluated again from its start") from error
