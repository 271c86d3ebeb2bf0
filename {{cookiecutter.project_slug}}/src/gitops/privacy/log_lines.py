"""The request log without the subject's lines: what has them, and how they are taken out without breaking its readers.

The monitor and compaction know lines by the byte at which they start (`monitor-state.json`, `gitops_sources`), and a
server goes on writing to its file. So a line of JSON is overwritten with spaces where it lies, which typed_lines.py
counts as no line; a parquet file keeps its name and its sources. A line's first byte goes first: what begins with a
space and is no JSON is an erasure that was killed, and is finished. An object is replaced as a whole.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from gitops.core import artifacts
from gitops.core.addresses import arrow_filesystem
from gitops.monitoring import log_entries, log_listing, request_log
from gitops.monitoring.answered_lines import INPUT
from gitops.monitoring.log_files import LINES, TABLE, Folder
from gitops.monitoring.request_ids import Key

if TYPE_CHECKING:
    import pyarrow as pa

    from gitops.privacy.subject import Subject

#: Rows of a row group of the log's parquet files, as typed_lines.py writes them.
ROW_GROUP = 131_072

Span = tuple[int, int]


@dataclass
class Found:
    """The subject's lines: in how many files, of which requests; `named`: whether any line of the log has ids."""

    files: int = 0
    lines: int = 0
    keys: set[Key] = field(default_factory=set)
    named: bool = False
    empty: bool = True  # the log has no line at all


def search(subject: Subject) -> Found:
    """Find the subject's lines. Raises ProjectError where the log cannot be read."""
    return _visit(subject, erase=False)


def erase(subject: Subject) -> Found:
    """Take the subject's lines out, and return what they were. Raises ProjectError where that is not possible."""
    return _visit(subject, erase=True)


def _visit(subject: Subject, *, erase: bool) -> Found:
    if request_log.absent("REQUEST_LOG"):
        return Found()
    with request_log.opened("REQUEST_LOG") as folder:
        if erase:
            _remove_unfinished(folder)
        for attempt in range(request_log.TRIES):
            try:
                return _pass(folder, subject, erase)
            except FileNotFoundError:  # a server has deleted its oldest file, or compaction has put it into a table
                if attempt == request_log.TRIES - 1:
                    raise
    raise AssertionError


def _pass(folder: Folder, subject: Subject, erase: bool) -> Found:
    found = Found()
    for name, content in folder.contents((LINES,)):
        before = found.lines
        _json(folder, folder.path(name), content, subject, found, erase)
        found.files += found.lines > before
    for name in tqdm(log_listing.find(folder).tables, desc="request log", unit="file", disable=None):
        before = found.lines
        _table(folder, folder.path(name), subject, found, erase)
        found.files += found.lines > before
    return found


def _remove_unfinished(folder: Folder) -> None:
    """Remove what a compaction that was killed has left: nobody reads it, and it holds lines."""
    if folder.local:
        for path in Path(folder.root).rglob(f".*{TABLE}"):
            path.unlink(missing_ok=True)


def _json(folder: Folder, path: str, content: bytes, subject: Subject, found: Found, erase: bool) -> None:
    found.empty &= not content.strip()
    found.named |= subject.column is None or json.dumps(subject.column).encode() in content
    spans = [*_spans(content, subject, found)]
    if not spans or not erase:
        return
    if folder.local:
        with open(path, "r+b", buffering=0) as file:
            for start, stop in spans:
                os.pwrite(file.fileno(), b" ", start)
                os.pwrite(file.fileno(), b" " * (stop - start), start)
            os.fsync(file.fileno())
        return
    blank = bytearray(content)
    for start, stop in spans:
        blank[start:stop] = b" " * (stop - start)
    folder.files.pipe_file(path, bytes(blank))
    folder.files.invalidate_cache(path)


def _spans(content: bytes, subject: Subject, found: Found) -> Iterator[Span]:
    """Yield where the subject's lines are, without their line ends, and count them in `found`."""
    if not subject.trace.search(content) and not content.startswith(b" ") and b"\n " not in content:
        return
    start = 0
    for line in content.splitlines(keepends=True):
        text = line.rstrip(b"\r\n")
        if (subject.trace.search(text) or text[:1] == b" ") and text.strip(b" "):
            owned, key = _owned(text, subject)
            if owned:
                found.lines += 1
                found.keys |= {key} if key else set()
                yield start, start + len(text)
        start += len(line)


def _owned(line: bytes, subject: Subject) -> tuple[bool, Key | None]:
    """Tell whether a line is the subject's, and of which request and instance it is.

    A line that is not of the log's form, where nobody knows whose it is, counts if it holds the id as a word.
    """
    try:
        entry = log_entries.entry(line)
    except ValueError:
        torn = line.startswith(b" ") and not _is_json(line)
        return torn or subject.named(line.decode("utf-8", "replace")), None
    request_id, instance = entry["request_id"], entry.get("instance", 0)
    if subject.column is None:
        return request_id == subject.value, (request_id, instance)
    if "inputs" in entry:
        return subject.equals(entry["inputs"].get(subject.column)), (request_id, instance)
    return _quoted(entry["errors"], subject), None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _quoted(errors: list[Any], subject: Subject) -> bool:
    """Tell whether the errors of a refused request quote the id: about its column, or about a row as a whole."""
    problems = (problem for problem in errors if isinstance(problem, dict))
    return any(
        subject.named(str(problem.get("error")))
        for problem in problems
        if problem.get("column") in (subject.column, None)
    )


def _table(folder: Folder, path: str, subject: Subject, found: Found, erase: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, filesystem=arrow_filesystem(folder.files)) as file:
        found.empty &= not file.metadata.num_rows
        found.named |= subject.column is None or f"{INPUT}{subject.column}" in file.schema_arrow.names
        wanted = {"request_id", "instance", "errors", "line", f"{INPUT}{subject.column}"}
        gone = _gone(file.read([name for name in file.schema_arrow.names if name in wanted]), subject, found)
        if not gone.any() or not erase:
            return
        table = file.read()
    with tempfile.TemporaryDirectory(prefix="request-log-") as temporary:
        made = Path(temporary, "made.parquet")
        pq.write_table(table.filter(pa.array(~gone)), made, compression="zstd", row_group_size=ROW_GROUP)
        if folder.local:
            with artifacts.replacing(Path(path)) as target:
                target.write_bytes(made.read_bytes())
        else:
            folder.files.pipe_file(path, made.read_bytes())
            folder.files.invalidate_cache(path)


def _gone(table: pa.Table, subject: Subject, found: Found) -> Any:
    """Return which rows of a parquet file of the log are the subject's (bool, [rows]), and count them in `found`."""
    gone = np.zeros(table.num_rows, bool)
    name = "request_id" if subject.column is None else f"{INPUT}{subject.column}"
    if name in table.column_names and table.num_rows:
        gone |= subject.among(table[name])
    for row in np.flatnonzero(table["line"].is_valid().to_numpy()):
        owned, key = _owned(table["line"][int(row)].as_py().rstrip(b"\r\n"), subject)
        gone[row] = owned
        found.keys |= {key} if owned and key else set()
    if subject.column is not None:
        for row in np.flatnonzero(table["errors"].is_valid().to_numpy()):
            gone[row] |= _quoted(json.loads(table["errors"][int(row)].as_py()), subject)
    taken = table.select(["request_id", "instance"]).filter(gone)
    pairs = zip(taken["request_id"].to_pylist(), taken["instance"].to_pylist(), strict=True)
    found.keys |= {(request_id, instance or 0) for request_id, instance in pairs if request_id is not None}
    found.lines += int(gone.sum())
    return gone
