"""The rows of a table that are for the model: those with a target, with derived features; and the splits of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW
from gitops.core.sections import Data
from gitops.tabular import derived, dtypes, keys, row_groups, schema, split
from gitops.tabular.chronological import SPLITS, TRAIN, Codes
from gitops.tabular.columns import Derived
from gitops.tabular.groups import Numbers
from gitops.tabular.row_groups import Stored
from gitops.tabular.streamed import Streamed, held


class Rows:
    """The rows that have a target. `keys` are what the split needs of them."""

    def __init__(self, found: pd.DataFrame | Streamed, features: Mapping[str, Derived], data: Data) -> None:
        """Read a table's keys. Raises ProjectError naming the setting or column at fault."""
        self.table, self._features, self._data = held(found), features, data
        derived.check(features, self.table.names, data)
        self.keys, self._known = keys.of(self.table, data)

    def starts(self, appended: Sequence[int]) -> list[int]:
        """Return the positions among these rows of rows of the table, or of what follows where they have no target."""
        return [int(np.count_nonzero(self._known[:row])) for row in appended]

    def splits(self, codes: Codes, groups: Numbers) -> dict[str, Any]:
        """Return the splits by name: frames, or files of a table that is read in parts (row_groups.Stored).

        Raises ProjectError where a column of the table or a derived feature cannot be computed.
        """
        if isinstance(self.table, Streamed):
            return self._stored(codes, groups)
        [(own, rows)] = self._parts(codes, groups)
        return {name: _frame(rows.filter(pa.array(own == code))) for code, name in enumerate(SPLITS)}

    def counts(self, codes: Codes) -> dict[str, int]:
        """Return how many rows the table has, how many are left out, by the reason, and how many each split has."""
        raw = len(self._known)
        return {"raw": raw, "dropped_missing_target": raw - len(codes)} | split.counts(codes)

    def _parts(self, codes: Codes, groups: Numbers) -> Iterator[tuple[Codes, pa.Table]]:
        """Return the rows, with the columns of the splits, in parts, and the code of each."""
        row = done = 0
        for part in self.table.parts(self.table.names):
            known = np.flatnonzero(self._known[row : row + part.num_rows])
            here = slice(done, done + len(known))
            if len(known):
                rows = part if len(known) == part.num_rows else part.take(pa.array(known))
                rows = derived.add(rows.append_column(ROW, pa.array(known + row)), self._features, self._data)
                yield codes[here], rows.add_column(1, GROUP, pa.array(groups[here]))
            row, done = row + part.num_rows, here.stop

    def _stored(self, codes: Codes, groups: Numbers) -> dict[str, Any]:
        artifacts.TRAIN.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=artifacts.TRAIN.parent, prefix=".")
        paths = {name: Path(folder.name) / f"{name}.parquet" for name in SPLITS}
        distinct = Distinct(self._features, self._data)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(row_groups.Writer(stack.enter_context(artifacts.replacing(path))))
                for path in paths.values()
            ]
            for own, rows in self._parts(codes, groups):
                for code, writer in enumerate(writers):
                    some = rows.filter(pa.array(own == code))
                    if some.num_rows:
                        writer.add(some)
                    if code == TRAIN:
                        distinct.count(some)
        return {name: Stored(path, folder) for name, path in paths.items()}


class Distinct:
    """The different texts of the training rows so far: too many are an error before all rows are written."""

    def __init__(self, derived: Mapping[str, Derived], data: Data) -> None:
        """Begin with no row."""
        self._derived, self._data, self._found = derived, data, dict[str, pa.Array]()

    def count(self, rows: pa.Table) -> None:
        """Add rows. Raises ProjectError for the first column that has more texts than data.max_categories."""
        for name in schema.feature_names(rows.column_names, self._data):
            if pa.types.is_string(rows.schema.field(name).type):
                known = [self._found[name]] if name in self._found else []
                self._found[name] = pc.unique(pa.chunked_array([*known, *rows[name].chunks])).drop_null()
                if len(self._found[name]) > self._data.max_categories:
                    found = f"{len(self._found[name])} distinct texts in some of the training rows"
                    raise schema.too_many(name, found, self._data, schema.remedy(name, self._derived))


def _frame(rows: pa.Table) -> pd.DataFrame:
    return pd.DataFrame({name: dtypes.series(rows[name]) for name in rows.column_names}, copy=False)
