"""What a split needs to know of each row, in narrow arrays: all of a large table that is held in memory.

For each row these are 1, 2 or 4 bytes for its class, or 8 for its number; 8 each for its time and its id, if there are
any; and 8 for a hash of its features, unless equal rows do not count. The split and the group that are found add 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import groups, schema
from gitops.tabular.groups import Numbers
from gitops.tabular.streamed import Table

Array = NDArray[Any]


@dataclass(frozen=True)
class Keys:
    """The rows that have a target, in the table's order; each array is [rows].

    `target`: numbers (float64), or indices of `classes`, which are sorted. `features`: hashes (uint64), equal for rows
    that are equal in all features. `ids`: numbers that rows of one id share. `times`: microseconds since 1970.
    """

    target: Array
    classes: list[str]
    features: Array | None = None
    ids: Numbers | None = None
    times: Array | None = None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Array | slice) -> Keys:
        """Return those of some rows, given as positions, a mask or a slice."""
        narrow = (self.features, self.ids, self.times)
        return Keys(self.target[rows], self.classes, *(None if each is None else each[rows] for each in narrow))


def of(table: Table, data: Data) -> tuple[Keys, Array]:
    """Return the keys of the rows that have a target, and for each row of the table whether it has one.

    Raises ProjectError where none has one, and where the target or the time is not what `data` says of it.
    """
    column = table.column(data.target)
    if data.task == "regression" and not pa.types.is_floating(column.type):
        raise ProjectError(f"data.target {data.target!r} is not a number in every row, which task 'regression' needs")
    known = column.is_valid().to_numpy()
    if not known.any():
        raise ProjectError(f"data.target {data.target!r} is missing in every row of {data.path}")
    target, classes = _target(column.drop_null(), data)
    del column
    times = _times(table.column(data.timestamp), known, data) if data.timestamp is not None else None
    ids = groups.by_id(table.column(data.id).filter(pa.array(known))) if data.id is not None else None
    features = _features(table, data)[known] if data.duplicates != "keep" else None
    return Keys(target, classes, features, ids, times), known


def _target(column: pa.ChunkedArray, data: Data) -> tuple[Array, list[str]]:
    if data.task == "regression":
        return column.to_numpy().astype(np.float64), []
    classes = sorted(map(str, pc.unique(column).to_pylist()))
    codes = pc.index_in(column, pa.array(classes, column.type)).to_numpy()
    return codes.astype(np.min_scalar_type(len(classes))), classes


def _times(column: pa.ChunkedArray, known: Array, data: Data) -> Array:
    if not pa.types.is_timestamp(column.type):
        raise ProjectError(f"data.timestamp {data.timestamp!r} is not an ISO 8601 date or time in every row")
    rows = np.flatnonzero(known & column.is_null().to_numpy())
    if len(rows):
        raise ProjectError(
            f"data.timestamp {data.timestamp!r} is missing in {len(rows)} rows, the first is row {rows[0]}"
        )
    times: Array = column.cast(pa.int64()).fill_null(0).to_numpy()[known]
    return times


def _features(table: Table, data: Data) -> Array:
    """Return the hash of each row's features. Derived ones are equal where those are that they are computed from."""
    hashes, start = np.empty(table.rows, np.uint64), 0
    for part in table.parts(schema.feature_names(table.names, data)):
        hashes[start : start + part.num_rows] = groups.hashes(part)
        start += part.num_rows
    return hashes
