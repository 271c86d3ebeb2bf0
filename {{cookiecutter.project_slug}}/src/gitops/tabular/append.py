"""Append rows to the raw table, in the table's own types; the rows that are there stay as they are, byte by byte.

A file is written anew and renamed: where DVC has linked it to its cache, writing into it would change the cache.
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data

if TYPE_CHECKING:
    import pyarrow as pa

#: A cell: number, truth value, date or text. A column that a row does not name is missing.
Row = dict[str, Any]


def append(data: Data, rows: list[Row]) -> None:
    """Append `rows` to the table of `data.path`. Raises ProjectError where a column cannot hold what it should."""
    path = Path(data.path)
    (_append_parquet if path.suffix == ".parquet" else _append_csv)(path, rows, data)


def _append_csv(path: Path, rows: list[Row], data: Data) -> None:
    content = path.read_bytes()
    with path.open(newline="", encoding="utf-8-sig") as file:
        columns = [name.strip() for name in next(csv.reader(file, skipinitialspace=True))]
    end = "\r\n" if b"\r\n" in content.partition(b"\n")[0] + b"\n" else "\n"
    marker = "" if "" in data.missing else next(iter(data.missing), None)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    for row in rows:
        cells = [marker if row.get(column) is None else _text(row[column]) for column in columns]
        if None in cells:
            raise ProjectError("data.missing is empty, and a request lacks a value: name a text that means missing")
        writer.writerow(cells)
    with artifacts.replacing(path) as temporary:
        gap = b"" if content.endswith(b"\n") else end.encode()
        temporary.write_bytes(content + gap + text.getvalue().encode())


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _append_parquet(path: Path, rows: list[Row], data: Data) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = []
    for field, old in zip(table.schema, table.columns, strict=True):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        values = [row.get(field.name.strip()) for row in rows]
        if pa.types.is_integer(kind) and any(isinstance(value, float) and value % 1 for value in values):
            kind = pa.float64()  # whole numbers until now
        try:
            new = pa.array([None if value is None else _cast(value, kind) for value in values], kind)
            columns.append(pa.chunked_array([*old.cast(kind).chunks, new]))
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            raise ProjectError(f"column {field.name!r} of {path} is {kind}; a request does not fit: {error}") from None
    grown = pa.table(columns, names=table.column_names)
    with artifacts.replacing(path) as temporary:
        pq.write_table(grown, temporary)


def _cast(value: Any, kind: pa.DataType) -> Any:
    """Return a cell as the Python value of an Arrow type. Raises ValueError, TypeError or ArithmeticError."""
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(kind):
        return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
    if types.is_integer(kind):
        return value if isinstance(value, int) else int(float(value))
    if types.is_floating(kind):
        return float(value)
    if types.is_decimal(kind):
        return round(Decimal(str(value)), kind.scale)
    if types.is_temporal(kind):
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if types.is_date(kind):
            return moment.date()
        return moment if kind.tz else moment.replace(tzinfo=None)
    return str(value)
