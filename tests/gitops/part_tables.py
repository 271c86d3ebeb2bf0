"""A folder and a table in it, for the tests of what is appended to a table."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Rows of the tables here.
ROWS = 60


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own, which is left again however the test has changed it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()


def csv_table(path: Path = Path("data/raw.csv"), rows: int = ROWS) -> Path:
    lines = [f"{row}.5,{'ab'[row % 2]},{row % 7},{'yes' if row % 3 else 'no'}" for row in range(rows)]
    path.write_text("\n".join(["x,note,count,y", *lines]))  # no line end after the last row
    return path
