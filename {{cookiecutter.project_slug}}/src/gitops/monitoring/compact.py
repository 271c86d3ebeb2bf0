"""Compact the request log: the JSON files of hours that are over become parquet files beside them (`make compact`).

A bucket's log has an object for each ten seconds of each server; the monitor, which reads a month of them every night,
needs one file an hour. A parquet file names in its metadata the JSON files whose lines it has, and how far it has them.
It is written whole before these are deleted, and readers leave out what a parquet file has: killed at any point, no
line is lost and none counts twice, and the next run takes it from there. JSON files that arrive later become a parquet
file of their own in that hour. Files outside `date=/hour=`, as earlier versions wrote them, are left as they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo
from gitops.monitoring import log_files, log_listing, log_table, request_log, typed_lines
from gitops.monitoring.log_files import Folder
from gitops.monitoring.typed_lines import Piece

if TYPE_CHECKING:
    import duckdb

#: How long an hour has to be over: what servers had in memory is written by then, and clocks differ.
GRACE = timedelta(minutes=10)

#: Bytes of JSON that become one parquet file, about.
BYTES = 2**26


@dataclass
class Done:
    """What a compaction did."""

    files: int = 0
    lines: int = 0
    tables: int = 0


def main() -> int:
    """Compact the hours of REQUEST_LOG that are over. Raises ProjectError where the log cannot be read or written."""
    done = compact(datetime.now(UTC))
    echo(f"Request log: {done.lines} lines of {done.files} files are in {done.tables} new parquet files")
    return 0


def compact(now: datetime) -> Done:
    """Compact the hours that were over GRACE before `now`."""
    done = Done()
    with request_log.opened("REQUEST_LOG") as folder, log_table.connected() as (connection, temporary):
        listing = log_listing.find(folder)
        hours: dict[str, dict[str, int]] = {}
        for name, size in listing.lines.items():
            hour = log_listing.hour_of(name)
            if hour is not None and hour + timedelta(hours=1) + GRACE <= now:
                hours.setdefault(_parent(name), {})[name] = size
        for hour_folder, sizes in hours.items():
            tables = [name for name in listing.tables if _parent(name) == hour_folder]
            spans = log_files.uncovered(sizes, folder.tables(tables))
            for pieces in folder.batches(spans, BYTES):
                done.lines += _write(folder, hour_folder, pieces, connection, temporary)
                done.tables += 1
            done.files += len(spans)
            _delete(folder, hour_folder, sizes)  # of a run that was killed too
    return done


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _write(
    folder: Folder, hour: str, pieces: list[Piece], connection: duckdb.DuckDBPyConnection, temporary: Path
) -> int:
    """Write lines as a parquet file of an hour and return their number. Raises ProjectError if it is not whole."""
    sources = {piece.source: piece.start + len(piece.content) for piece in pieces}
    spans = json.dumps([[piece.source, piece.start, len(piece.content)] for piece in pieces])
    name = f"{hour}/{hashlib.sha256(spans.encode()).hexdigest()[:16]}{log_files.TABLE}"
    made = temporary / "made.parquet"
    lines = typed_lines.write(connection, pieces, made, sources)
    if folder.local:
        with artifacts.replacing(Path(folder.path(name))) as path:
            shutil.copyfile(made, path)
    else:  # an object is written as a whole or not at all
        folder.files.pipe_file(folder.path(name), made.read_bytes())
    folder.files.invalidate_cache(folder.path(hour))
    (written,) = folder.tables([name])
    if (written.rows, written.sources) != (lines, sources):
        raise ProjectError(f"{folder.path(name)} does not hold what was written: the JSON files stay")
    return lines


def _delete(folder: Folder, hour: str, sizes: dict[str, int]) -> None:
    """Delete the JSON files of an hour, all of whose lines are in its parquet files, unless one has grown meanwhile."""
    folder.files.invalidate_cache(folder.path(hour))
    present = folder.files.find(folder.path(hour), detail=True)
    names = {path: folder.name(path) for path in present}
    done = [path for path, name in names.items() if sizes.get(name) == int(present[path]["size"])]
    if done:
        folder.files.rm(done)


if __name__ == "__main__":
    run(main)
