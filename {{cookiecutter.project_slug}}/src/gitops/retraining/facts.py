"""What a retraining must know of the table that it appends to: its dtypes, its classes and how many rows it has.

data/appended.json keeps these facts for the next retraining, which then reads no row of the table for them. They hold
for a table (its md5) and for how it is read (the section `data` of params.yaml). Where one of these has changed, and at
first, they are found anew: in the schemas of parquet files and their target column, or by reading a CSV file, since a
dtype there depends on all cells of the column.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gitops.core.sections import Data
from gitops.tabular import append, cells, dtypes, parts, table


@dataclass(frozen=True)
class Facts:
    """Of the table with all its parts: rows, dtype by column, classes in order (of a regression none)."""

    rows: int
    dtypes: dict[str, str]
    classes: list[str]

    def grown(self, rows: int) -> Facts:
        """Return the facts of the table after `rows` more rows, which fit it."""
        return replace(self, rows=self.rows + rows)


def of(data: Data) -> Facts:
    """Return the facts of the table. Raises ProjectError where it has to be read and cannot."""
    kept = parts.state(data).get("facts")
    if kept and kept["read_as"] == _digest(data):
        return Facts(**{name: value for name, value in kept.items() if name != "read_as"})
    return _of_csv(data) if data.path.endswith(".csv") else _of_parquet(data)


def kept(facts: Facts, data: Data) -> dict[str, Any]:
    """Return what data/appended.json keeps of the facts."""
    return asdict(facts) | {"read_as": _digest(data)}


def _digest(data: Data) -> str:
    return hashlib.sha256(json.dumps(data.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def _of_csv(data: Data) -> Facts:
    frame = table.read(data)
    classes = [] if data.task == "regression" else sorted(frame[data.target].dropna().unique())
    return Facts(len(frame), {str(name): table.dtype(frame[name]) for name in frame.columns}, classes)


def _of_parquet(data: Data) -> Facts:
    import pyarrow.parquet as pq

    paths = [Path(path) for path in parts.files(data)]
    fixed = dict.fromkeys([data.id, *data.categorical], "category")
    fixed |= {data.target: "number" if data.task == "regression" else "category", data.timestamp: "datetime"}
    found = {
        name: fixed.get(name) or cells.dtype(type_) or "category"
        for name, type_ in append.types(data).items()
        if name not in data.left_out
    }
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    return Facts(rows, found, [] if data.task == "regression" else sorted(_classes(paths, data)))


def _classes(paths: list[Path], data: Data) -> set[str]:
    """Return the classes in the target's columns of parquet files, of which memory holds one batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    classes: set[str] = set()
    for path in paths:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name.strip() == data.target]
            for batch in file.iter_batches(columns=names):
                values = batch.column(0)
                values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
                known = dtypes.texts(pa.chunked_array([values.unique()]), ["", *(data.missing_target or [])])
                classes.update(known.drop_null().to_pylist())
    return classes
