"""Read CSV files as columns of text, as `data.csv` says that they are written. Nothing is guessed, nothing dropped.

A row has as many cells as the header. Training refuses a file in which one has not; batch and labels leave the row out
and count it. A byte-order mark is accepted in every encoding.
"""

from __future__ import annotations

import csv as python_csv
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.tabular import csv_checks, csv_rows
from gitops.tabular.csv_checks import START, Malformed

#: What Arrow and Python raise for what is no CSV of the encoding.
UNREADABLE = (pa.ArrowInvalid, UnicodeError, python_csv.Error)

Skip = Callable[[pacsv.InvalidRow], str]


def read(path: Path, csv: Csv, problem: str) -> tuple[list[str], list[pa.ChunkedArray]]:
    """Return the stripped names of the header's cells, and the columns of text.

    `problem` begins the ProjectError for a file that is empty or holds a header alone, rows with another number of
    cells, bytes that are not of the encoding, a quote that is not closed, or another delimiter.
    """
    content = _mapped(path, problem)
    name = csv_rows.encoding(content[:4], csv, problem)
    csv_checks.check_text(content, name, problem)
    malformed = Malformed(csv.delimiter)
    spaced = csv_rows.padded(content, csv, name)
    try:
        table = _table(pa.BufferReader(pa.py_buffer(content)), csv, name, spaced, malformed)
        names = [column.strip() for column in table.column_names]
    except UNREADABLE as error:
        csv_checks.check_bytes(content, name, csv, problem)
        if "Empty CSV" not in str(error):
            raise ProjectError(f"{problem}: not a readable csv table ({error})") from error
        blank = not content[:START].decode(name, "ignore").strip()
        what = "the file is empty; a header and rows are expected" if blank else "the table has no rows"
        raise ProjectError(f"{problem}: {what}") from None
    csv_checks.check_delimiter(names, csv, problem)
    csv_checks.check_rows(malformed, table.num_rows, len(names), content, name, csv, problem)
    if not table.num_rows:
        raise ProjectError(f"{problem}: the table has no rows")
    csv_checks.check_closed(table.columns[-1][-1].as_py(), content, name, csv, problem)
    return names, table.columns


def _mapped(path: Path, problem: str) -> mmap.mmap:
    """Return the bytes of a file, which are read when they are used."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ProjectError(f"{problem}: not a readable csv table ({error})") from error
    raise ProjectError(f"{problem}: the file is empty; a header and rows are expected")


def read_lenient(content: bytes, csv: Csv, problem: str) -> tuple[pa.Table, int]:
    """Return a file's columns of text, and the number of rows left out because they have too few or too many cells.

    Raises ProjectError, which begins with `problem`, where the file cannot be read.
    """
    name = csv_rows.encoding(content[:4], csv, problem)
    malformed = Malformed(csv.delimiter)
    # Arrow needs a line end after a header that stands alone. That of UTF-16 would have a mark before it.
    end = b"" if name.startswith(("utf-16", "utf-32")) else b"\n"
    stream = pa.BufferReader(content + end)
    try:
        table = _table(stream, csv, name, csv_rows.padded(content, csv, name), malformed)
        return table.rename_columns([column.strip() for column in table.column_names]), malformed.count
    except UNREADABLE as error:
        raise ProjectError(f"{problem}: not a readable csv table ({error})") from error


def _table(stream: Any, csv: Csv, name: str, spaced: bool, skip: Skip) -> pa.Table:
    if spaced:
        stream, name = csv_rows.unpadded(stream, csv, name), "utf8"
    return pacsv.read_csv(stream, pacsv.ReadOptions(encoding=name), *_options(csv, skip))


def opened(stream: Any, csv: Csv, name: str, spaced: bool, skip: Skip, block: int) -> pacsv.CSVStreamingReader:
    """Return a reader of a stream's blocks of text, of `block` bytes each.

    `name` is what `csv_rows.encoding` returns, `spaced` what `csv_rows.padded` returns for the stream's beginning.
    """
    if spaced:
        stream, name = csv_rows.unpadded(stream, csv, name), "utf8"
    # Arrow numbers the lines only without threads.
    options = pacsv.ReadOptions(use_threads=False, block_size=block, encoding=name)
    return pacsv.open_csv(stream, options, *_options(csv, skip))


def _options(csv: Csv, skip: Skip) -> tuple[pacsv.ParseOptions, pacsv.ConvertOptions]:
    return (
        pacsv.ParseOptions(delimiter=csv.delimiter, newlines_in_values=True, invalid_row_handler=skip),
        pacsv.ConvertOptions(default_column_type=pa.string()),
    )
