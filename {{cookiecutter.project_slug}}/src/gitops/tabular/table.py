"""Read the raw table and give every column one of four dtypes: number, boolean, datetime or category.

A CSV file holds only text, so the dtype of a column is inferred from all its values; a parquet file has types. Parsing
looks at all rows; statistics come later, from the training rows alone (schema.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from gitops.core.artifacts import GROUP, ROW, ProjectError, read_parquet
from gitops.core.sections import Data

#: A text column of which this fraction parses as numbers, but not all, most likely has unknown missing-value markers.
MOSTLY = 0.9

ISO_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"


def read(data: Data) -> pd.DataFrame:
    """Return the table of `data.path` with the dtypes of docs/system-design.md and missing values as NA.

    The target is left as text (classification) or made float64 (regression). Raises ProjectError with the file or
    column at fault: a file that is missing, not readable or without rows, a column that `params.yaml` names and the
    table lacks, an infinite value.
    """
    if data.query is not None:
        raise ProjectError(f"data.query is {data.query!r}: a database is read by prepare.py, see docs/your-model.md")
    return of_frame(load(Path(data.path)), data)


def of_frame(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Return the same of a table that was read from elsewhere. Raises ProjectError as `read` does."""
    _require(frame, data)
    return typed(frame.drop(columns=data.left_out), data)


def typed(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Return a loaded table with a dtype for every column. Raises ProjectError naming the column that has none."""
    for column in frame.columns:
        as_text = column in data.categorical or (column == data.target and data.task != "regression")
        as_text = as_text or column == data.id
        frame[column] = _text(frame[column], data) if as_text else _typed(frame[column], data)
    return frame


def dtype(column: pd.Series[Any]) -> str:
    """Return the dtype of a column that `typed` has returned, as schema.json names it."""
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_datetime64_any_dtype(column):
        return "datetime"
    return "number" if pd.api.types.is_numeric_dtype(column) else "category"


def load(path: Path, setting: str = "data.path") -> pd.DataFrame:
    """Return the table in the file `path`, which `setting` names; the columns of CSV are texts. Raises ProjectError."""
    problem = f"{setting} is {str(path)!r}"
    if not path.exists():
        raise ProjectError(f"{problem}: there is no such file; `dvc pull` gets it, or correct {setting}")
    try:
        if path.suffix == ".parquet":
            frame = read_parquet(path)
        else:
            frame = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                encoding="utf-8-sig",
                on_bad_lines="error",
            )
    except pd.errors.EmptyDataError:
        raise ProjectError(f"{problem}: the file is empty; a header and rows are expected") from None
    except (ValueError, OSError) as error:  # pandas' ParserError and pyarrow's ArrowInvalid are ValueErrors
        raise ProjectError(f"{problem}: not a readable {path.suffix[1:]} table ({error})") from error
    frame.columns = [str(column).strip() for column in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()].unique().tolist()
    if repeated:
        raise ProjectError(f"{problem}: columns {repeated} appear more than once; rename them")
    if frame.empty:
        raise ProjectError(f"{problem}: the table has no rows")
    return frame.reset_index(drop=True)


def _require(frame: pd.DataFrame, data: Data) -> None:
    singles = {"data.target": data.target, "data.id": data.id, "data.timestamp": data.timestamp}
    named = [(setting, column) for setting, column in singles.items() if column is not None]
    named += [("data.drop", column) for column in data.drop] + [
        ("data.categorical", column) for column in data.categorical
    ]
    for setting, column in named:
        if column not in frame.columns:
            raise ProjectError(
                f"{setting} names column {column!r}, which {data.path} lacks; it has {', '.join(frame.columns)}"
            )
    for name in (ROW, GROUP):
        if name in frame.columns.difference(data.drop):
            raise ProjectError(
                f"{data.path} has a column {name!r}, a name that the splits use: rename it or add it to data.drop"
            )


def _text(column: pd.Series[Any], data: Data) -> pd.Series[Any]:
    """Return the column as stripped text, None where it is missing or one of the markers."""
    missing = column.isna()
    text = column.astype(str).str.strip()
    if pd.api.types.is_float_dtype(column):  # whole numbers with gaps: 7.0 is the code 7
        text = text.str.removesuffix(".0")
    return text.astype(object).where(~(missing | text.isin(data.missing)), None)


def _typed(column: pd.Series[Any], data: Data) -> pd.Series[Any]:
    if pd.api.types.is_bool_dtype(column):
        return column.astype("boolean")
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.to_datetime(column, utc=True).astype("datetime64[ns, UTC]")
    if pd.api.types.is_numeric_dtype(column):
        return _finite(column.astype("float64"), data)
    text = _text(column, data)
    return _infer(text, data) if data.path.endswith(".csv") or column.name in (data.target, data.timestamp) else text


def _infer(text: pd.Series[Any], data: Data) -> pd.Series[Any]:
    known = text.dropna()
    if known.empty:
        return text.astype("float64")  # wholly missing: a number like any other, refused by schema.py
    if known.str.lower().isin(["true", "false"]).all():
        return text.str.lower().map({"true": True, "false": False}).astype("boolean")
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.notna().all():
        return _finite(pd.to_numeric(text).astype("float64"), data)
    if known.str.match(ISO_DATE).all():
        try:
            return pd.to_datetime(text, utc=True, format="ISO8601").astype("datetime64[ns, UTC]")
        except ValueError:
            return text
    if numbers.notna().mean() >= MOSTLY:
        texts = known[numbers.isna()]
        raise ProjectError(
            f"column {text.name!r} of {data.path} holds numbers, and texts in {len(texts)} rows, the first in row "
            f"{texts.index[0]} (counted from 0 after the header): add the texts to data.missing if they mean unknown, "
            f"or {text.name!r} to data.categorical if its numbers are codes"
        )
    return text


def _finite(column: pd.Series[Any], data: Data) -> pd.Series[Any]:
    infinite = column.index[column.abs() == float("inf")]
    if len(infinite):
        raise ProjectError(
            f"column {column.name!r} of {data.path} is infinite in {len(infinite)} rows, the first is row "
            f"{infinite[0]} (counted from 0 after the header): correct it or leave it empty"
        )
    return column
