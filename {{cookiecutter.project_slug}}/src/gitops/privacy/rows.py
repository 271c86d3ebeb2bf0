"""Rows of a table's file, CSV or parquet: which are the subject's, and the file without them.

What stays keeps its bytes in CSV (delimiters, quotes, line ends, encoding) and its values, types and row groups in
parquet. The result is read again, by the reader that training uses, before it counts.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.tabular import csv_file, csv_rows
from gitops.tabular.csv_checks import Malformed

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject


def of_subject(path: Path, subject: Subject, csv: Csv) -> list[int]:
    """Return the numbers, from 0, of the rows whose cell in `data.id` is the id. Raises ProjectError without it."""
    name = str(subject.column)
    if path.suffix == ".csv":
        if name not in csv_rows.header(path, csv):
            raise ProjectError(f"{path} lacks the column {name!r} of data.id")
        return matching(path, csv, [name], subject.equals) if _may_hold(path, subject, csv) else []
    found, start = [], 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            column = _column(file, name, group, start)
            found += (np.flatnonzero(subject.among(column)) + start).tolist()
            start += len(column)
    return found


def _column(file: pq.ParquetFile, name: str, group: int, start: int) -> pa.ChunkedArray:
    """Return a column of a row group, which begins at the file's row `start`; pandas' index may be it. ProjectError."""
    stored = [each for each in file.schema_arrow.names if each.strip() == name]
    table = file.read_row_group(group, columns=stored) if stored else _whole(file, group, start)
    names = [each.strip() for each in table.column_names]
    if name not in names:
        raise ProjectError(f"the parquet files of data.path lack the column {name!r} of data.id")
    return table.column(names.index(name))


def _may_hold(path: Path, subject: Subject, csv: Csv) -> bool:
    """Tell whether the bytes of the id stand anywhere in a CSV file: most versions of a table are not read further."""
    if '"' in subject.value or not path.stat().st_size:
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _, codec = _notation(content[:4], csv, str(path))
        try:
            return content.find(subject.value.encode(codec)) >= 0
        except UnicodeEncodeError:  # no text in this encoding is the id
            return False


def matching(path: Path, csv: Csv, columns: Sequence[str], wanted: Callable[..., bool]) -> list[int]:
    """Return the numbers of the rows of a CSV file, from 0 after the header, of which `wanted` is true.

    It gets the row's cells in `columns`: None where the file has no such column, or the row ends before it.
    """
    with path.open("rb") as file:
        rows = (row for row, _ in _records(file, csv, str(path)) if row)
        names = [cell.strip() for cell in next(rows, [])]
        places = [names.index(name) if name in names else sys.maxsize for name in columns]
        return [
            at for at, row in enumerate(rows) if wanted(*(row[place] if place < len(row) else None for place in places))
        ]


def write_without(path: Path, target: Path, positions: Collection[int], csv: Csv) -> int:
    """Write the file `path` to `target` without the rows at some positions, and return how many rows it has then.

    Raises ProjectError where the other rows could not be kept as they are.
    """
    return (_csv if path.suffix == ".csv" else _parquet)(path, target, {*positions}, csv)


def _csv(path: Path, target: Path, positions: set[int], csv: Csv) -> int:
    seen, at, left = hashlib.md5(usedforsecurity=False), -2, 0
    with path.open("rb") as file, target.open("wb") as output:
        mark, codec = _notation(file.read(4), csv, str(path))
        file.seek(0)
        seen.update(mark)
        output.write(mark)
        for row, text in _records(file, csv, str(path)):
            raw = text.encode(codec)
            seen.update(raw)
            at += bool(row)
            if not row or at not in positions:
                output.write(raw)
                left += bool(row)
    left -= 1  # the header
    if seen.hexdigest() != artifacts.digest(path, "md5"):
        raise ProjectError(f"{path} cannot be written again byte for byte in {csv.encoding}: write it in utf-8")
    _check_csv(path, target, len(positions), left, csv)
    return left


def _check_csv(path: Path, target: Path, removed: int, left: int, csv: Csv) -> None:
    """Raise ProjectError unless the reader that training uses finds just as many rows fewer."""
    before = _lengths(path, csv)
    after = _lengths(target, csv) if left else 0
    if before - removed != after or after != left:
        raise ProjectError(
            f"{path} has {before} rows, and without the {removed} to erase {after}: its quotes are read in two ways; "
            "write the table again with a CSV library"
        )


def _lengths(path: Path, csv: Csv) -> int:
    """Return how many rows a CSV file has for the reader that training uses, those with too few cells included."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        name = csv_rows.encoding(content[:4], csv, str(path))
        spaced, malformed = csv_rows.padded(content, csv, name), Malformed(csv.delimiter)
    try:
        stream = pa.memory_map(str(path))
        reader = csv_file.opened(stream, csv, name, spaced, malformed, csv_file.BLOCK)
        return sum(int(batch.num_rows) for batch in reader) + malformed.count
    except csv_file.UNREADABLE as error:
        raise ProjectError(f"{path}: not a readable csv table ({type(error).__name__})") from None


def _notation(start: bytes, csv: Csv, problem: str) -> tuple[bytes, str]:
    """Return a file's byte-order mark, and the encoding of what follows it."""
    if start.startswith(b"\xef\xbb\xbf"):
        return start[:3], "utf-8"
    name = csv_rows.encoding(start, csv, problem)
    for mark, _, plain in csv_rows.MARKS:
        if start.startswith(mark) and name.startswith(("utf-16", "utf-32")):
            return mark, plain
    return b"", f"{name}-{sys.byteorder[0]}e" if name in ("utf-16", "utf-32") else name


def _records(file: IO[bytes], csv: Csv, problem: str) -> Iterator[tuple[list[str], str]]:
    """Yield each row of a CSV file with the text that it stands in; an empty line is a row without cells."""
    mark, codec = _notation(file.read(4), csv, problem)
    file.seek(len(mark))
    text, taken = io.TextIOWrapper(file, codec, newline=""), list[str]()

    def lines() -> Iterator[str]:
        for line in text:
            taken.append(line)
            yield line

    try:
        for row in csv_rows.reader(lines(), csv):
            yield row, "".join(taken)
            taken.clear()
    except UnicodeError:
        raise ProjectError(f"{problem} holds bytes that are not {codec}: set data.csv.encoding") from None
    finally:
        text.detach()


def _parquet(path: Path, target: Path, positions: set[int], _: Csv) -> int:
    start = left = 0
    with pq.ParquetFile(path) as file:
        footer = file.metadata
        codec = footer.row_group(0).column(0).compression if footer.num_row_groups and footer.num_columns else "SNAPPY"
        schema = _whole(file, 0).schema if footer.num_row_groups else file.schema_arrow
        with pq.ParquetWriter(target, schema, compression=codec.replace("UNCOMPRESSED", "NONE")) as writer:
            for group in range(footer.num_row_groups):
                table = _whole(file, group, start)
                gone = [position - start for position in positions if start <= position < start + table.num_rows]
                keep = np.ones(table.num_rows, bool)
                keep[gone] = False
                start += table.num_rows
                table = table.filter(pa.array(keep))
                left += table.num_rows
                if table.num_rows:
                    writer.write_table(table, row_group_size=table.num_rows)
    if pq.read_metadata(target).num_rows != left or left != start - len(positions):
        raise ProjectError(f"{path} could not be written again: {left} rows of {start} are there")
    return left


def _whole(file: pq.ParquetFile, group: int, start: int = 0) -> pa.Table:
    """Return a row group, which begins at the file's row `start`, with pandas' index as a column if it has a name.

    An index that is a range is no column of the file: a row's number would be another one after a row before it is
    gone.
    """
    table = file.read_row_group(group)
    about = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    for at, index in enumerate(about.get("index_columns", [])):
        if isinstance(index, dict) and index.get("kind") == "range" and index.get("name"):
            name, numbers = str(index["name"]), np.arange(start, start + table.num_rows)
            table = table.append_column(name, pa.array(numbers * index["step"] + index["start"]))
            about["index_columns"][at] = name
            kind = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
            about["columns"].append({"name": name, "field_name": name, **kind})
            metadata = {**table.schema.metadata, b"pandas": json.dumps(about).encode()}
            return table.replace_schema_metadata(metadata)
    return table
