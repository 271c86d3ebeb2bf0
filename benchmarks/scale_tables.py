"""Tables for scale.py, written in a project's environment: `python scale_tables.py KIND PATH ROWS`.

KIND is narrow, 30 numbers and a class, or wide, 1,000 numbers, 500 categories and a class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

#: Rows that are generated at once.
CHUNK = 200_000

NUMBERS, WIDE_NUMBERS, WIDE_CATEGORIES = 30, 1000, 500


def narrow(rows: int, dice: np.random.Generator) -> pa.Table:
    """Return numbers x0 to x29, and y, a class that four of them decide, with noise."""
    values = dice.normal(size=(rows, NUMBERS))
    return table(values, dice)


def wide(rows: int, dice: np.random.Generator) -> pa.Table:
    """Return numbers x0 to x999, a hundredth of them missing, categories c0 to c499 of ten texts each, and y."""
    values = dice.normal(size=(rows, WIDE_NUMBERS))
    found = table(np.where(dice.random(values.shape) < 0.01, np.nan, values), dice, values)
    texts = pa.array([f"text {index}" for index in range(10)])
    for index in range(WIDE_CATEGORIES):
        column = pa.DictionaryArray.from_arrays(pa.array(dice.integers(0, 10, rows), pa.int32()), texts)
        found = found.append_column(f"c{index}", column.dictionary_decode())
    return found


def table(shown: np.ndarray, dice: np.random.Generator, values: np.ndarray | None = None) -> pa.Table:
    """Return the columns of `shown` [rows, columns] and y, which `values` decide."""
    decides = (shown if values is None else values)[:, :4].sum(axis=1) + dice.normal(size=len(shown))
    columns = {f"x{index}": pa.array(column, from_pandas=True) for index, column in enumerate(shown.T)}
    return pa.table(columns | {"y": pa.array(np.where(decides > 0, "yes", "no"))})


def main() -> None:
    """Write a table as pyarrow does if nobody says otherwise."""
    kinds: dict[str, Callable[[int, np.random.Generator], pa.Table]] = {"narrow": narrow, "wide": wide}
    kind, path, rows = kinds[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    dice = np.random.default_rng(7)
    path.parent.mkdir(parents=True, exist_ok=True)
    first = kind(min(CHUNK, rows), dice)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for start in range(CHUNK, rows, CHUNK):
            writer.write_table(kind(min(CHUNK, rows - start), dice))


if __name__ == "__main__":
    main()
