"""Small tables as people have them: made after public bug reports, and what lies beyond those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from defaults import complete
from gitops.core.sections import Csv, Data
from gitops.tabular import cells, table

#: Numbers, colours and classes of the rows.
ROWS = 60
A = [round(0.576 - 0.031 * row, 3) for row in range(ROWS)]
COLOURS = ["green", "blue", "red"] * (ROWS // 3)
CLASSES = ["yes", "no"] * (ROWS // 2)


def settings(path: Path | str, csv: dict[str, Any] | None = None, **changes: Any) -> Data:
    """Return the section `data` for the table at `path`, with changes of the default project's settings."""
    written = cells.DEFAULT.model_dump() | (csv or {})
    values = {"path": str(path), "target": "y", "task": "binary", "csv": written, **changes}
    return Data(**complete({"data": values})["data"])


def read(path: Path, csv: dict[str, Any] | None = None, **changes: Any) -> pd.DataFrame:
    """Return the table at `path` as `prepare` reads it."""
    return table.read(settings(path, csv, **changes))


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    """Return the dtype of each column as schema.json names it."""
    return {name: table.dtype(frame[name]) for name in frame}


def write(path: Path, header: str, rows: list[str], encoding: str = "utf-8", end: str = "\n") -> Path:
    """Write lines, and return the path."""
    path.write_bytes("".join(line + end for line in (header, *rows)).encode(encoding))
    return path


def lines(pattern: str, **columns: list[Any]) -> list[str]:
    """Return a line for each row: the pattern with the row's values."""
    values = {"a": A, "colour": COLOURS, "y": CLASSES, **columns}
    return [pattern.format(row=row, **{name: values[name][row] for name in values}) for row in range(ROWS)]


def comma(number: float) -> str:
    """Return a number with a decimal comma."""
    return str(number).replace(".", ",")


def csv(**changes: Any) -> Csv:
    """Return how a file is written, with changes of the default."""
    return cells.DEFAULT.model_copy(update=changes)


def assert_values(frame: pd.DataFrame) -> None:
    """Assert that the columns a, colour and y hold the values of the rows."""
    assert np.array_equal(frame["a"], A)
    assert frame["colour"].tolist() == COLOURS
    assert frame["y"].tolist() == CLASSES
