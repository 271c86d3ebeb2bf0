"""What the model answers, in the mean, over the values of one column.

Numbers, dates and booleans have accumulated local effects (Apley and Zhu, 2020, "Visualizing the Effects of Predictor
Variables in Black Box Supervised Learning Models"). Partial dependence (Friedman, 2001) sets a column to a value in all
rows, also in those that could never have it: the radius of a small cell with the area of a large one. Local effects
compare each row's answers at two values near its own, so that columns which go together stay together, and they need
two answers a row and no grid. Categories have no order and no neighbours, so that theirs is partial dependence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]

#: Returns the outputs for rows: values [rows] or probabilities [rows, classes].
Predict = Callable[[pd.DataFrame], Array]

#: Bins of a column, at most, and rows that one has in the mean, at least.
BINS, ROWS = 20, 10

#: The part of the training rows that lies beyond the curve at each end: so few rows say nothing of it.
TAIL = 0.025

#: Quantiles that are averaged to the edge of a bin, of 1,024: an edge is no row's own value.
WINDOW = 16

#: Categories, the most frequent ones, and rows that are answered for each.
CATEGORIES, SAMPLE = 8, 200


def numbers(column: pd.Series[Any], dtype: str) -> Array:
    """Return a split's column of numbers, booleans or dates as the encoder's float64, NaN for missing."""
    if dtype == "datetime":
        column = (column - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return column.astype("Float64").to_numpy("float64", na_value=np.nan)


def cells(values: Array, dtype: str) -> Any:
    """Return numbers of the encoder as a split's column has them."""
    if dtype == "datetime":
        return pd.to_datetime(values, unit="s", utc=True)
    return pd.array(values > 0.5, dtype="boolean") if dtype == "boolean" else values


def edges(quantiles: Array, rows: int) -> Array:
    """Return the edges of the bins of a column, ascending, from quantiles of the training rows at equal distances.

    A column of few values has these as edges; there is one edge alone where it has one value.
    """
    bins = max(1, min(BINS, rows // ROWS))
    if len(values := np.unique(quantiles)) <= bins + 1:
        return values
    places = np.round(np.linspace(TAIL, 1 - TAIL, bins + 1) * (len(quantiles) - 1)).astype(int)
    near = np.clip(places[:, None] + np.arange(-WINDOW // 2, WINDOW // 2 + 1), 0, len(quantiles) - 1)
    return np.unique(quantiles[near].mean(axis=1))


def of_numbers(predict: Predict, frame: pd.DataFrame, name: str, dtype: str, at: Array) -> tuple[Array, Array]:
    """Return x [points], edges of `at` between which there are rows, and the effects [points, outputs] there.

    Effects are shifted so that their mean over the rows is the mean answer. Without rows between two edges no points.
    """
    values = numbers(frame[name], dtype)
    within = (values >= at[0]) & (values <= at[-1]) & (len(at) > 1)
    rows, values = frame[within], values[within]
    if not len(rows):
        return np.empty(0), np.empty((0, 0))
    counts = np.bincount(np.searchsorted(at, values).clip(1), minlength=len(at))[1:]
    first = int(np.flatnonzero(counts)[0])
    at = at[first:][np.append(True, counts[first:] > 0)]  # an empty bin is one with the next
    counts, place = counts[counts > 0], np.searchsorted(at, values).clip(1)
    both = pd.concat([rows.assign(**{name: cells(at[place + side], dtype)}) for side in (-1, 0)])
    low, high = np.split(_matrix(predict(both)), 2)
    sums = np.zeros((len(at), low.shape[1]))
    np.add.at(sums, place, high - low)
    curve = np.append(np.zeros((1, low.shape[1])), (sums[1:] / counts[:, None]).cumsum(axis=0), axis=0)
    middle = (counts[:, None] * (curve[1:] + curve[:-1]) / 2).sum(axis=0) / counts.sum()
    return at, curve - middle + _matrix(predict(rows)).mean(axis=0)


def of_categories(predict: Predict, frame: pd.DataFrame, name: str, texts: list[str]) -> Array:
    """Return the mean outputs [texts, outputs] of rows in which the column is each text in turn."""
    rows = frame.head(SAMPLE)
    return np.array([_matrix(predict(rows.assign(**{name: text}))).mean(axis=0) for text in texts])


def _matrix(outputs: Array) -> Array:
    return outputs.reshape(len(outputs), -1)
