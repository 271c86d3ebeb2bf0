"""Rows of a CSV file one by one, with Python's csv: for the header, for the line of a row, and to rewrite a file.

Slower than Arrow by far, so no table is read with it that Arrow can read.
"""

from __future__ import annotations

import codecs
import csv as python_csv
import io
import mmap
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv

#: Byte-order marks of what is not UTF-8, with the name of the encoding and its name without a mark. That of UTF-32
#: begins with one of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32", "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32", "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
)

#: Rows that are rewritten at once.
ROWS = 1000


def encoding(start: bytes, csv: Csv, problem: str) -> str:
    """Return the encoding of a file that begins with `start`. Raises ProjectError where its mark says another one."""
    if start.startswith(codecs.BOM_UTF8):
        return "utf8"
    wanted = codecs.lookup(csv.encoding).name
    for mark, name, _ in MARKS:
        if start.startswith(mark):
            if wanted.startswith(("utf-16", "utf-32")):
                return name
            raise ProjectError(
                f"{problem}: it begins with the byte-order mark of {name}: set data.csv.encoding to {name}"
            )
    return "utf8" if wanted in ("utf-8", "utf-8-sig") else wanted


def rows(stream: IO[bytes], csv: Csv, name: str, errors: str = "replace") -> Any:
    """Return a reader of the rows of a stream in the encoding `name`."""
    return reader(io.TextIOWrapper(stream, "utf-8-sig" if name == "utf8" else name, errors, newline=""), csv)


def reader(lines: Iterable[str], csv: Csv) -> Any:
    """Return a reader of the rows in lines of text, which have their line ends."""
    python_csv.field_size_limit(2**31 - 1)
    return python_csv.reader(lines, delimiter=csv.delimiter, skipinitialspace=csv.delimiter != " ")


def lines(stream: IO[bytes], csv: Csv, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line, from 1, at which each row begins, and the row; without empty lines, as Arrow reads."""
    found = rows(stream, csv, name)
    while True:
        begin = found.line_num + 1
        row = next(found, None)
        if row is None:
            return
        if row:
            yield begin, row


def line(path: Path, csv: Csv, row: int) -> int:
    """Return the line, from 1, at which a row of a file begins; rows count from 0 after the header."""
    return _row(path, csv, row + 1)[0]


def header(path: Path, csv: Csv) -> list[str]:
    """Return the stripped names of the header's cells."""
    return [cell.strip() for cell in _row(path, csv, 0)[1]]


def _row(path: Path, csv: Csv, number: int) -> tuple[int, list[str]]:
    with path.open("rb") as file:
        name = encoding(file.read(4), csv, str(path))
        file.seek(0)
        return next(islice(lines(file, csv, name), number, None))


def padded(content: bytes | mmap.mmap, csv: Csv, name: str) -> bool:
    """Tell whether spaces stand between a delimiter and a quote, as in `1, "a"`: Arrow takes such a quote for text."""
    if name.startswith(("utf-16", "utf-32")):
        content = bytes(content).decode(name, "ignore").encode()
    at = -1 if csv.delimiter == " " else content.find(b' "')
    while at >= 0:
        before = content[max(0, at - 100) : at].rstrip(b" ")
        if not before or before.endswith((csv.delimiter.encode(), b"\n", b"\r")):
            return True
        at = content.find(b' "', at + 1)
    return False


def unpadded(stream: Any, csv: Csv, name: str) -> Any:
    """Return a stream of the same rows in UTF-8, without spaces between delimiters and quotes."""
    readable = stream if isinstance(stream, io.IOBase) else io.BufferedReader(_Stream(stream))
    return pa.PythonFile(_Rewritten(rows(readable, csv, name, "strict"), csv.delimiter), mode="r")  # type: ignore[arg-type]


class _Stream(io.RawIOBase):
    """An Arrow stream as one of Python's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class _Rewritten(io.RawIOBase):
    """The rows of a reader, written again."""

    def __init__(self, rows: Iterator[list[str]], delimiter: str) -> None:
        self._rows = rows
        self._delimiter = delimiter
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            some = list(islice(self._rows, ROWS))
            if not some:
                return 0
            text = io.StringIO(newline="")
            python_csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(some)
            self._waiting = text.getvalue().encode()
        part, self._waiting = self._waiting[: len(buffer)], self._waiting[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
