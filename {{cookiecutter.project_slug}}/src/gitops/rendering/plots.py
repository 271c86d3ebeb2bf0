"""Data of DVC's plots (`dvc plots show`): one CSV a plot in evaluation/plots. Their templates are set in dvc.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gitops.core import artifacts
from gitops.rendering.curves import Array, reliability, roc_curve

#: Columns of the calibration plot.
BIN = ("predicted", "observed", "rows")

#: Maximum number of points of a curve; more are not visible and make reports large.
POINTS = 500

#: Rows of the confusion plot, which counts them, at most; of more each cell has its share of so many.
CONFUSED = 100_000


def write(actual: Array, outputs: Array, predicted: Array, schema: dict[str, Any]) -> None:
    """Write each plot of the task and remove those of other tasks; arrays as in the project's metrics.py."""
    for stale in artifacts.PLOTS.glob("*.csv"):
        stale.unlink()
    add(tables(actual, outputs, predicted, schema))


def add(plots: Mapping[str, pd.DataFrame]) -> None:
    """Write plots by their names beside those that are there."""
    for name, table in plots.items():
        with artifacts.replacing(Path(artifacts.PLOTS, f"{name}.csv")) as temporary:
            table.to_csv(temporary, index=False)


def tables(actual: Array, outputs: Array, predicted: Array, schema: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the plots by name: roc (binary), calibration and confusion (classes), residuals (regression)."""
    classes = schema["target"]["classes"]
    if not classes:
        shown = _thin(len(actual))
        return {"residuals": pd.DataFrame({"actual": actual[shown], "predicted": outputs[shown]})}
    names = np.array(classes, dtype=object)
    plots = {
        "confusion": _confusion(actual, predicted, names),
        "calibration": pd.DataFrame(dict(zip(BIN, reliability(actual, outputs), strict=True))),
    }
    if len(classes) == 2:
        false, true = roc_curve(actual, outputs[:, -1])
        shown = _thin(len(false))
        plots["roc"] = pd.DataFrame({"fpr": false[shown], "tpr": true[shown]})
    return plots


def _confusion(actual: Array, predicted: Array, names: Array) -> pd.DataFrame:
    """Return actual and predicted class of each row; of very many rows of a few in proportion, by cell, at least one of
    each.
    """
    if len(actual) > CONFUSED:
        cells, rows = np.unique(actual * len(names) + predicted, return_counts=True)
        cells = np.repeat(cells, np.maximum(1, np.round(rows * (CONFUSED / len(actual)))).astype(int))
        actual, predicted = np.divmod(cells, len(names))
    return pd.DataFrame({"actual": names[actual], "predicted": names[predicted]})


def _thin(count: int) -> Array:
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
