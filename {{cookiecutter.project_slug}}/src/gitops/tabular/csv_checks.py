"""What is wrong with a CSV file as a whole, each as an error that names the line and the setting."""

from __future__ import annotations

import io
import json
import mmap
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.tabular import csv_rows

#: Bytes at the beginning of a file that show how it is written.
START = 2**20


@dataclass
class Malformed:
    """Counts the rows with too few or too many cells; as Arrow's handler of such rows it leaves them out."""

    delimiter: str
    count: int = 0
    trailing: int = 0  # of them, those with one empty cell too many, at their end

    def __call__(self, row: pacsv.InvalidRow) -> str:
        """Count the row."""
        self.count += 1
        one_more = row.actual_columns == row.expected_columns + 1
        self.trailing += one_more and row.text.rstrip("\r\n").endswith(self.delimiter)
        return "skip"


def check_text(content: mmap.mmap, name: str, problem: str) -> None:
    """Raise ProjectError where there is a zero byte, as in UTF-16 without a mark, or after a write that was cut off."""
    if name.startswith(("utf-16", "utf-32")) or (at := content.find(b"\0")) < 0:
        return
    start = content[:START]
    if start.count(b"\0") > len(start) // 4:
        raise ProjectError(
            f"{problem}: every other byte is zero, as in utf-16: set data.csv.encoding to utf-16-le or utf-16-be"
        )
    raise ProjectError(
        f"{problem}: line {_line_ends(content[:at]) + 1} holds a zero byte, which no text has: write the file again"
    )


def check_bytes(content: mmap.mmap, name: str, csv: Csv, problem: str) -> None:
    """Raise ProjectError where bytes are not of the encoding `name`."""
    try:
        bytes(content).decode(name)
    except UnicodeDecodeError as error:
        line = _line_ends(content[: error.start].decode(name, "ignore").encode()) + 1
        hint = "most likely cp1252" if name == "utf8" else "such as utf-8"
        raise ProjectError(
            f"{problem}: line {line} holds bytes that are not {csv.encoding}: set data.csv.encoding to that of the "
            f"file, {hint}"
        ) from None


def _line_ends(text: bytes) -> int:
    return len(re.findall(rb"\r\n|\r|\n", text))


def check_delimiter(names: list[str], csv: Csv, problem: str) -> None:
    """Raise ProjectError where the header is one cell because the delimiter is another one."""
    for delimiter in (";", "\t", "|", ","):
        if len(names) == 1 and delimiter in names[0] and delimiter != csv.delimiter:
            raise ProjectError(
                f"{problem}: the header is one cell, which holds {json.dumps(delimiter)}: set data.csv.delimiter to "
                f"{json.dumps(delimiter)}"  # as YAML writes a tab
            )


def check_rows(
    malformed: Malformed, good: int, cells: int, content: mmap.mmap, name: str, csv: Csv, problem: str
) -> None:
    """Raise ProjectError where rows do not have the header's number of `cells`; `good`: how many have."""
    if not malformed.count:
        return
    if malformed.trailing == malformed.count and not good:
        raise ProjectError(
            f"{problem}: every row ends with {csv.delimiter!r} and the header does not, so that each row has one cell "
            "more than there are names: remove the delimiter from the ends of the rows"
        )
    uneven = ((begin, len(row)) for begin, row in csv_rows.lines(io.BytesIO(content), csv, name) if len(row) != cells)
    begin, found = next(uneven, (None, None))
    first = f", the first in line {begin}, which has {found}" if begin else ""
    raise ProjectError(
        f"{problem}: {malformed.count} rows do not have the {cells} cells of the header{first}: correct the rows; a "
        f"cell that holds {csv.delimiter!r} needs quotes, and data.csv.delimiter may be another one"
    )


def check_closed(last: str, content: mmap.mmap, name: str, csv: Csv, problem: str) -> None:
    """Raise ProjectError where the quote of the table's last cell is not closed."""
    if open_quote(last, content[-8:], name):
        begin = max(begin for begin, _ in csv_rows.lines(io.BytesIO(content), csv, name))
        raise ProjectError(f"{problem}: a quote in the row that begins in line {begin} is not closed")


def open_quote(last: str, end: bytes, name: str) -> bool:
    """Tell whether the quote of a table's last cell is not closed: it has swallowed lines. `end`: the last bytes."""
    return last.endswith(("\n", "\r")) and not end.decode(name, "ignore").rstrip("\r\n").endswith('"')


def check_trailing(names: list[str], columns: list[pa.ChunkedArray], csv: Csv, problem: str) -> None:
    """Raise ProjectError where a delimiter at the end of every line makes a column without name and values."""
    if len(names) > 1 and names[-1] == "" and not pc.any(pc.not_equal(columns[-1], "")).as_py():
        raise ProjectError(
            f"{problem}: every line ends with {csv.delimiter!r}, which makes a column {len(names)} without a name and "
            "values: remove the delimiter from the ends of the lines"
        )
