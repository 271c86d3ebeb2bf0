"""Write rows that are appended to the table as a file of its own, one of the table's parts (parts.py).

It is written as the table is: the same columns, and their types or, in CSV, the notation of data.csv, the encoding and
the line ends. Of the table only its beginning is read, or the schema of a parquet file.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import csv_checks, csv_rows, parts, table
from gitops.tabular.parquet_files import INDEX

if TYPE_CHECKING:
    import pyarrow as pa

#: Values by column: number, boolean, date or text. A column that is not there is missing.
Row = dict[str, Any]


def append(data: Data, rows: list[Row], dtypes: dict[str, str], number: int) -> Path:
    """Write `rows` as part `number` of the table of `data.path`, counted from 1, and return its path.

    `dtypes` are those of the table's columns. Raises ProjectError where a column cannot hold a value, or where its
    values would give the column another dtype; then nothing is left.
    """
    first = Path(parts.files(data)[0])
    with tempfile.TemporaryDirectory(prefix="part-") as folder:
        draft = Path(folder, f"part{first.suffix}")
        (_write_csv if first.suffix == ".csv" else _write_parquet)(draft, rows, first, data)
        _check_dtypes(draft, dtypes, data)
        target = parts.folder(data) / parts.name(number, draft)
        with artifacts.replacing(target) as temporary:
            shutil.copyfile(draft, temporary)
    return target


def types(data: Data) -> dict[str, pa.DataType]:
    """Return the type of each column of a parquet table; nothing for CSV, whose cells hold any text."""
    first = Path(parts.files(data)[0])
    if first.suffix == ".csv":
        return {}
    fields = ((name.strip(), _plain(type_)) for name, type_ in _fields(first))
    return {name: type_ for name, type_ in fields if not INDEX.fullmatch(name)}


def fits(value: Any, type_: pa.DataType) -> bool:
    """Tell whether a column of this type can hold a value, or None; one of whole numbers can become one of others."""
    import pyarrow as pa

    if pa.types.is_integer(type_) and isinstance(value, float) and value % 1:
        return True
    try:
        pa.array([None if value is None else _cast(value, type_)], type_)
    except (ValueError, TypeError, LookupError, ArithmeticError, pa.ArrowException):
        return False
    return True


def _check_dtypes(draft: Path, dtypes: dict[str, str], data: Data) -> None:
    """Raise ProjectError where the written rows, read as the table is, do not have the dtypes of the table's columns.

    A column that is missing in all of them has any dtype, and texts leave a category one: the table holds others.
    """
    texts = [name for name, dtype in dtypes.items() if dtype == "category"]
    named = {data.target, data.id, data.timestamp}
    categorical = [*data.categorical, *(name for name in texts if name not in {*data.categorical} | named)]
    found = table.read(data.model_copy(update={"path": str(draft), "categorical": categorical}))
    changed = [
        name
        for name, dtype in dtypes.items()
        if table.dtype(found[name]) != dtype and not found[name].isna().all() and dtype != "category"
    ]
    if changed:
        raise ProjectError(f"the labelled requests change the dtype of columns of {data.path}: {', '.join(changed)}")


def _write_csv(draft: Path, rows: list[Row], first: Path, data: Data) -> None:
    with first.open("rb") as file:
        content = file.read(csv_checks.START)
    columns = csv_rows.header(first, data.csv)
    encoding = csv_rows.encoding(content[:4], data.csv, str(first))
    end = (re.findall(r"\r\n|\n|\r", content.decode(encoding, "ignore")) or ["\n"])[0]
    marker = "" if "" in data.missing else next(iter(data.missing), None)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=data.csv.delimiter, lineterminator=end)
    writer.writerow(columns)
    for row in rows:
        cells = [marker if row.get(column) is None else _text(row[column], data) for column in columns]
        if None in cells:
            raise ProjectError("data.missing is empty, and a request lacks a value: add a text that means missing")
        _check_encodable(columns, cells, encoding, data)
        writer.writerow(cells)
    draft.write_bytes(text.getvalue().encode(encoding))


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


def _write_parquet(draft: Path, rows: list[Row], first: Path, _: Data) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields, columns = _fields(first), []
    for name, type_ in fields:
        values = [row.get(name.strip()) for row in rows]
        if pa.types.is_integer(type_) and any(isinstance(value, float) and value % 1 for value in values):
            type_ = pa.float64()  # whole numbers until now: the reader takes both
        try:
            plain = _plain(type_)
            array = pa.array([None if value is None else _cast(value, plain) for value in values], plain)
            columns.append(array.cast(type_))
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException):
            raise ProjectError(f"column {name!r} of {first} is {type_}, which a request's value does not fit") from None
    pq.write_table(pa.table(columns, names=[name for name, _ in fields]), draft)


def _fields(path: Path) -> list[tuple[str, pa.DataType]]:
    """Return name and type of a parquet file's columns, those of pandas' index too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    fields = [(field.name, field.type) for field in schema]
    for index in (schema.pandas_metadata or {}).get("index_columns", []):
        if isinstance(index, dict) and index.get("kind") == "range" and index.get("name"):
            fields.append((str(index["name"]), pa.int64()))
    return fields


def _plain(type_: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, of a dictionary as well."""
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_


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
