"""A column of a table as it was loaded, with what errors say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gitops.core.sections import Csv
from gitops.tabular import csv_rows


@dataclass(frozen=True)
class Column:
    """A column of a table: `csv` is the notation of its texts, None where texts are no numbers, booleans or dates."""

    name: str
    values: pa.ChunkedArray
    path: str
    csv: Csv | None
    files: tuple[tuple[str, int], ...] = ()  # CSV files, in which rows have lines, and how many rows each has

    def place(self, row: int) -> str:
        """Return where a row is, for an error."""
        if self.csv is not None:
            first = 0
            for path, rows in self.files:
                if row < first + rows:
                    where = f"line {csv_rows.line(Path(path), self.csv, row - first)}"
                    return where if path == self.path else f"{where} of {path}"
                first += rows
        return f"row {row} (counted from 0)"

    def first(self, found: pa.ChunkedArray) -> str:
        """Return in how many rows a boolean column is true, and where the first of them is."""
        rows = np.flatnonzero(found.fill_null(False).to_numpy())
        return f"{len(rows)} rows, the first is {self.place(int(rows[0]))}"
