"""Derived features in a table: `prepare` adds them to the splits, so that schema, checks and slices have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.tabular import arrow, cells, schema
from gitops.tabular.columns import Column, Columns, Derived, derive, raised

#: Values of a row that is computed beside other rows may differ by this much, relative: vectorised code rounds anew.
TOLERANCE = 1e-9


def check(derived: Mapping[str, Derived], columns: Sequence[str], data: Data) -> None:
    """Raise ProjectError naming the derived feature whose name is a column's, or which has an input that is none."""
    features = schema.feature_names(columns, data)
    for name, feature in derived.items():
        if name in (*columns, ROW, GROUP):
            raise ProjectError(f"DERIVED[{name!r}]: {data.path} has a column of this name; choose another name")
        if isinstance(feature.inputs, str) or not feature.inputs:
            raise ProjectError(
                f"DERIVED[{name!r}]: inputs is {feature.inputs!r}; a tuple of columns is needed: ('a', 'b')"
            )
        for column in feature.inputs:
            if column not in features:
                raise ProjectError(
                    f"DERIVED[{name!r}] has the input {column!r}, which is not a feature of {data.path}; its features "
                    f"are {', '.join(features)}"
                )


def add(rows: pa.Table, derived: Mapping[str, Derived], data: Data) -> pa.Table:
    """Return rows of a typed table with a column for each derived feature, of those that `check` accepts.

    Raises ProjectError naming the feature where its function fails or does not return a column, or the value of a row
    depends on other rows, which a request would not have.
    """
    if not derived:
        return rows
    features = schema.feature_names(rows.column_names, data)
    inputs = [name for name in features if any(name in feature.inputs for feature in derived.values())]
    stored = [{"name": name, "dtype": cells.dtype(rows.schema.field(name).type)} for name in inputs]
    columns = arrow.from_table(rows, {"features": stored})
    computed = {name: _compute(name, feature, columns, rows.num_rows) for name, feature in derived.items()}
    # Each row beside other neighbours, in another order; and one row alone, as in most requests.
    order = np.arange(rows.num_rows)[::-1]
    for places in (order[::2], order[1::2], order[-1:]):
        some = {name: _take(column, places) for name, column in columns.items()}
        for name, feature in derived.items():
            if len(places) and not _same(_compute(name, feature, some, len(places)), _take(computed[name], places)):
                raise ProjectError(f"DERIVED[{name!r}]: a row's value depends on other rows; compute it from its own")
    for name, column in computed.items():
        rows = rows.append_column(name, _array(column))
    return rows


def _compute(name: str, feature: Derived, columns: Columns, rows: int) -> Column:
    try:
        column = derive(columns, {name: feature}, [name])[name]
    except Exception as error:  # of the project's own function
        raise ProjectError(f"DERIVED[{name!r}] failed: {raised(error)}") from error
    if isinstance(column, torch.Tensor):
        fits = column.shape == (rows,)
    else:
        fits = isinstance(column, list) and len(column) == rows
        fits = fits and all(text is None or isinstance(text, str) for text in column)
    if not fits:
        raise ProjectError(f"DERIVED[{name!r}] must return a tensor, or a list of texts, with one value for each row")
    return column


def _take(column: Column, rows: np.ndarray[Any, Any]) -> Column:
    if isinstance(column, torch.Tensor):
        return column[torch.from_numpy(rows.copy())]
    return [column[row] for row in rows]


def _same(first: Column, second: Column) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.allclose(first, second, rtol=TOLERANCE, atol=0, equal_nan=True)
    return first == second


def _array(column: Column) -> pa.Array:
    if isinstance(column, torch.Tensor):
        return pa.array(column.numpy(), from_pandas=True)  # NaN is null
    return pa.array(column, pa.string())
