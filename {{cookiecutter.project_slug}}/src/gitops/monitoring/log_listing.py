"""Which files the request log has: those of a window, found without listing what lies before it.

Servers write `date=YYYY-MM-DD/hour=HH/<name>.jsonl`, by the time in UTC at which a file was begun, and compaction puts
parquet files beside them. No line is later than the hour in its file's path, so an hour before the window is never
listed. Files that lie elsewhere, as those of earlier versions do, are read if they were written in the window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from gitops.monitoring.log_files import LINES, TABLE, Folder

DAY, HOUR = re.compile(r"date=(\d{4}-\d\d-\d\d)"), re.compile(r"hour=(\d\d)")
PARTITION = re.compile(r"(?:^|/)date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/[^/]+$")


@dataclass
class Listing:
    """The JSON files with their sizes in bytes, the parquet files, and how many files and folders were left out."""

    lines: dict[str, int] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    folders_skipped: int = 0  # days or hours before the window, which were not listed
    files_skipped: int = 0  # files outside partitions that were last written before the window


def find(folder: Folder, since: datetime | None = None) -> Listing:
    """Return the log's files, sorted, but for hours before `since` and other JSON files last written before it."""
    folder.files.invalidate_cache(folder.root)
    found, todo = Listing(), [folder.root]
    while todo:
        for path, entry in _entries(folder, todo.pop()):
            if entry["type"] != "directory":
                if path.endswith(LINES) and since is not None and folder.modified(path, entry) < since:
                    found.files_skipped += 1
                else:
                    _add(folder, found, path, entry)
            elif day := _day(path):
                _add_day(folder, found, path, day, since)
            else:
                todo.append(path)
    found.lines = dict(sorted(found.lines.items()))
    found.tables.sort()
    return found


def _add_day(folder: Folder, found: Listing, path: str, day: date, since: datetime | None) -> None:
    first = since.astimezone(UTC) if since else None
    if first and day < first.date():
        found.folders_skipped += 1
    elif first and day == first.date():
        for below, entry in _entries(folder, path):
            hour = HOUR.fullmatch(below.rpartition("/")[2])
            if hour and int(hour[1]) < first.hour:
                found.folders_skipped += 1
            elif entry["type"] == "directory":
                _add_all(folder, found, below)
            else:
                _add(folder, found, below, entry)
    else:
        _add_all(folder, found, path)


def _add_all(folder: Folder, found: Listing, path: str) -> None:
    for below, entry in folder.files.find(path, detail=True).items():
        _add(folder, found, below, entry)


def _add(folder: Folder, found: Listing, path: str, entry: dict[str, Any]) -> None:
    if path.endswith(LINES):
        found.lines[folder.name(path)] = int(entry["size"])
    elif path.endswith(TABLE) and hour_of(path) and not path.rpartition("/")[2].startswith("."):  # of a killed run
        found.tables.append(folder.name(path))


def _entries(folder: Folder, path: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        listed = folder.files.ls(path, detail=True)
    except FileNotFoundError:  # nothing was written to the bucket yet
        return []
    return [(each, entry) for entry in listed if (each := entry["name"].rstrip("/")) != path.rstrip("/")]


def hour_of(name: str) -> datetime | None:
    """Return the hour in a file's path, None where it lies in none."""
    found = PARTITION.search(name)
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}:00:00+00:00") if found else None
    except ValueError:
        return None


def _day(path: str) -> date | None:
    found = DAY.fullmatch(path.rpartition("/")[2])
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None
