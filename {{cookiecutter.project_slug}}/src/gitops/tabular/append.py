"""Append rows to the raw table as it is written, in its types; a CSV file's present rows keep every byte.

The file is replaced, never changed in place: DVC may have linked it to its cache, which would change too.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import csv_checks, csv_rows
from gitops.tabular.load import read_parquet

if TYPE_CHECKING:
    import pyarrow as pa

#: Values by column: number, boolean, date or text. A column that is not there is missing.
Row = dict[str, Any]


def append(data: Data, rows: list[Row]) -> None:
    """Append `rows` to the table of `data.path`. Raises ProjectError where a column cannot hold a value."""
    path = Path(data.path)
    (_append_parquet if path.suffix == ".parquet" else _append_csv)(path, rows, data)


def types(data: Data) -> dict[str, pa.DataType]:
    """Return the type of each column of a parquet table; nothing for CSV, whose cells hold any text."""
    if not data.path.endswith(".parquet"):
        return {}
    import pyarrow.parquet as pq

    return {field.name.strip(): _plain(field.type) for field in pq.read_schema(data.path)}


def fits(value: Any, type_: pa.DataType) -> bool:
    """Tell whether a column of this type can hold a value, or None; whole numbers may become others in `append`."""
    import pyarrow as pa

    if pa.types.is_integer(type_) and isinstance(value, float):
        return True
    try:
        pa.array([None if value is None else _cast(value, type_)], type_)
    except (ValueError, TypeError, LookupError, ArithmeticError, pa.ArrowException):
        return False
    return True


def _plain(type_: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, of a dictionary as well."""
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _append_csv(path: Path, rows: list[Row], data: Data) -> None:
    content = path.read_bytes()
    columns = csv_rows.header(path, data.csv)
    encoding = csv_rows.encoding(content[:4], data.csv, str(path))
    for mark, name, bare in csv_rows.MARKS:
        if name == encoding and content.startswith(mark):
            encoding = bare  # what is appended has no mark of its own
    start = content[: csv_checks.START].decode(encoding, "ignore")
    end = (re.findall(r"\r\n|\n|\r", start) or ["\n"])[0]
    marker = "" if "" in data.missing else next(iter(data.missing), None)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=data.csv.delimiter, lineterminator=end)
    for row in rows:
        cells = [marker if row.get(column) is None else _text(row[column], data) for column in columns]
        if None in cells:
            raise ProjectError("data.missing is empty, and a request lacks a value: add a text that means missing")
        _check_encodable(columns, cells, encoding, data)
        writer.writerow(cells)
    with artifacts.replacing(path) as temporary:
        gap = b"" if content.endswith(end.encode(encoding)) else end.encode(encoding)
        temporary.write_bytes(content + gap + text.getvalue().encode(encoding))


def _text(value: Any, data: Data) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    return text.replace(".", data.csv.decimal) if isinstance(value, float) else text


def _check_encodable(columns: list[str], cells: list[Any], encoding: str, data: Data) -> None:
    for column, cell in zip(columns, cells, strict=True):
        try:
            cell.encode(encoding)
        except UnicodeEncodeError:
            raise ProjectError(
                f"a request's value of column {column!r} has characters that data.csv.encoding ({data.csv.encoding}) "
                f"lacks: write {data.path} in utf-8"
            ) from None


def _append_parquet(path: Path, rows: list[Row], data: Data) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = read_parquet(path, f"data.path is {str(path)!r}")
    columns = []
    for field, old in zip(table.schema, table.columns, strict=True):
        type_ = _plain(field.type)
        values = [row.get(field.name) for row in rows]
        if pa.types.is_integer(type_) and any(isinstance(value, float) and value % 1 for value in values):
            type_ = pa.float64()  # whole numbers until now
        try:
            new = pa.array([None if value is None else _cast(value, type_) for value in values], type_)
            columns.append(pa.chunked_array([*old.cast(type_).chunks, new]))
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException):
            raise ProjectError(
                f"column {field.name!r} of {path} is {type_}, which a request's value does not fit"
            ) from None
    grown = pa.table(columns, names=table.column_names)
    with artifacts.replacing(path) as temporary:
        pq.write_table(grown, temporary)


def _cast(value: Any, type_: pa.DataType) -> Any:
    """Return a cell as the Python value of an Arrow type. Raises ValueError, TypeError or ArithmeticError."""
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(type_):
        return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
    if types.is_integer(type_):
        return int(value) if isinstance(value, int | str) else int(float(value))
    if types.is_floating(type_):
        return float(value)
    if types.is_decimal(type_):
        return round(Decimal(str(value)), type_.scale)
    if types.is_temporal(type_):
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if types.is_date(type_):
            return moment.date()
        return moment if type_.tz else moment.replace(tzinfo=None)
    return str(value)
