"""skrub's TableReport of some rows: the table itself, its columns' distributions, and which of them go together.

It is asked for rows and columns that it takes a few seconds for: it works on a pandas frame, and its time grows with
both. What it says is of these rows; the rest of the page counts all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.exploration.context import FOLDER

if TYPE_CHECKING:
    import pandas as pd

#: Rows and columns that it gets, at most.
ROWS, COLUMNS = 20_000, 60


def render(frame: pd.DataFrame) -> str:
    """Return the report as HTML to be put into a page; it needs nothing from elsewhere."""
    # At its import skrub makes a folder for data sets, in the person's home if it is not told otherwise.
    os.environ["SKB_DATA_DIRECTORY"] = str(Path(FOLDER, "skrub").absolute())
    from skrub import TableReport

    report = TableReport(frame, verbose=0, plot_distributions=True, compute_associations=True)
    return str(report.html_snippet())
