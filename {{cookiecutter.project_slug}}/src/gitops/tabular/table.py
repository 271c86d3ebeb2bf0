"""Read the raw table and give every column one of four dtypes: number, boolean, datetime or category.

A CSV file holds only text, so the dtype of a column is inferred from all its values; a parquet file, and a frame that
comes out of a database, have types. Both become columns of Arrow first, which dtypes.py types. Parsing looks at all
rows; statistics come later, from the training rows alone (schema.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.tabular import cells, dtypes, load
from gitops.tabular.load import Loaded
from gitops.tabular.raw_column import Column


def read(data: Data) -> pd.DataFrame:
    """Return the table of `data.path` with the dtypes of docs/system-design.md and missing values as NA.

    The target is left as text (classification) or made float64 (regression). Raises ProjectError with the file, column,
    line and setting at fault: a file that is missing, not readable or without rows, a column that `params.yaml` names
    and the table lacks, one that has none of the dtypes, a text that may be a class or mean that it is missing, more
    rows without a target than data.max_lost allows.
    """
    if data.query is not None:
        raise ProjectError(f"data.query is {data.query!r}: a database is read by prepare.py, see docs/your-model.md")
    return _checked(load.whole(data), data)


def of_frame(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Return the same of a table that was read from elsewhere. Raises ProjectError as `read` does."""
    return _checked(load.frame(frame, data), data)


def _checked(loaded: Loaded, data: Data) -> pd.DataFrame:
    _require(loaded.columns, data)
    for name in data.left_out:
        loaded.columns.pop(name, None)
    return typed(loaded, data)


def typed(loaded: Loaded, data: Data) -> pd.DataFrame:
    """Return a loaded table with a dtype for every column. Raises ProjectError naming the column that has none."""
    columns = {name: _typed(dtypes.plain(loaded.column(name)), data) for name in [*loaded.columns]}
    return pd.DataFrame(columns, copy=False)


def _typed(column: Column, data: Data) -> pd.Series[Any]:
    if column.name == data.target:
        return _target(column, data)
    if column.name == data.id or column.name in data.categorical:
        dtypes.check_codes(column)
        return dtypes.category(dtypes.texts(column.values, data.missing))
    if not pa.types.is_string(column.values.type):
        return dtypes.of_type(column, data)
    if column.csv is None and column.name != data.timestamp:
        return dtypes.category(dtypes.texts(column.values, data.missing))
    return dtypes.of_text(column, data)


def dtype(column: pd.Series[Any]) -> str:
    """Return the dtype of a column that `typed` has returned, as schema.json names it."""
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_datetime64_any_dtype(column):
        return "datetime"
    return "number" if pd.api.types.is_numeric_dtype(column) else "category"


def _target(column: Column, data: Data) -> pd.Series[Any]:
    if data.task == "regression":
        markers = data.missing if data.missing_target is None else data.missing_target
        settings = data.model_copy(update={"missing": markers})
        text = pa.types.is_string(column.values.type)
        found = dtypes.of_text(column, settings) if text else dtypes.of_type(column, settings)
    else:
        found = dtypes.category(_classes(column, data))
    missing = found.isna().to_numpy()
    if missing.mean() > data.max_lost and not missing.all():
        raise ProjectError(
            f"data.target {column.name!r} of {column.path} is missing in {column.first(pa.chunked_array([missing]))}, "
            f"which is {missing.mean():.0%} of {len(missing)}, more than data.max_lost ({data.max_lost}): correct "
            "data.target or the table, or raise the limit"
        )
    return found


def _classes(column: Column, data: Data) -> pa.ChunkedArray:
    """Return the target's classes, null where one is missing. An empty text never is a class."""
    classes = dtypes.texts(column.values, [""])
    if data.missing_target is not None:
        return cells.known(classes, data.missing_target)
    doubtful = pc.is_in(classes, pa.array(sorted({*data.missing} - {""}), pa.string()))
    if pc.any(doubtful).as_py():
        found = pc.unique(pc.filter(classes, doubtful)).to_pylist()
        raise ProjectError(
            f"data.target {column.name!r} of {column.path} is a text of data.missing ({', '.join(map(repr, found))}) "
            f"in {column.first(doubtful)}: set data.missing_target to {found} if such rows have no target and are to "
            "be left out, or to [] if it is a class"
        )
    return classes


def _require(columns: Iterable[str], data: Data) -> None:
    singles = {"data.target": data.target, "data.id": data.id, "data.timestamp": data.timestamp}
    named = [(setting, column) for setting, column in singles.items() if column is not None]
    named += [("data.drop", column) for column in data.drop] + [
        ("data.categorical", column) for column in data.categorical
    ]
    for setting, column in named:
        if column not in columns:
            raise ProjectError(
                f"{setting} names column {column!r}, which {data.path} lacks; it has {', '.join(columns)}"
            )
    for name in (ROW, GROUP):
        if name in columns and name not in data.left_out:
            raise ProjectError(
                f"{data.path} has a column {name!r}, a name that the splits use: rename it or add it to data.drop"
            )
