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
import torch
from numpy.typing import NDArray

from gitops.tabular.columns import Columns

Array = NDArray[Any]

#: Returns the outputs for columns: values [rows] or probabilities [rows, classes].
Predict = Callable[[Columns], Array]

#: Bins of a column, at most, and rows that one has in the mean, at least.
BINS, ROWS = 20, 10

#: The part of the training rows that lies beyond the curve at each end: so few rows say nothing of it.
TAIL = 0.025

#: Quantiles that are averaged to the edge of a bin, of 1,024: an edge is no row's own value.
WINDOW = 16

#: Categories, the most frequent ones, and rows that are answered for each.
CATEGORIES, SAMPLE = 8, 200


def take(columns: Columns, rows: Array) -> Columns:
    """Return the columns of some rows (int64)."""
    places, numbers = torch.from_numpy(rows), rows.tolist()
    return {
        name: column[places] if isinstance(column, torch.Tensor) else [column[row] for row in numbers]
        for name, column in columns.items()
    }


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


def of_numbers(predict: Predict, columns: Columns, outputs: Array, name: str, at: Array) -> tuple[Array, Array]:
    """Return x [points], edges of `at` between which there are rows, and the effects [points, outputs] there.

    `outputs` is what `predict` returns for `columns`. Effects are shifted so that their mean over the rows is the mean
    answer. Without rows between two edges there are no points.
    """
    values = torch.as_tensor(columns[name]).numpy()
    rows = np.flatnonzero((values >= at[0]) & (values <= at[-1]) & (len(at) > 1))
    if not len(rows):
        return np.empty(0), np.empty((0, 0))
    values = values[rows]
    counts = np.bincount(np.searchsorted(at, values).clip(1), minlength=len(at))[1:]
    first = int(np.flatnonzero(counts)[0])
    at = at[first:][np.append(True, counts[first:] > 0)]  # an empty bin is one with the next
    counts, place = counts[counts > 0], np.searchsorted(at, values).clip(1)
    both = take(columns, np.tile(rows, 2)) | {name: torch.from_numpy(np.append(at[place - 1], at[place]))}
    low, high = np.split(_matrix(predict(both)), 2)
    sums = np.zeros((len(at), low.shape[1]))
    np.add.at(sums, place, high - low)
    curve = np.append(np.zeros((1, low.shape[1])), (sums[1:] / counts[:, None]).cumsum(axis=0), axis=0)
    middle = (counts[:, None] * (curve[1:] + curve[:-1]) / 2).sum(axis=0) / counts.sum()
    return at, curve - middle + _matrix(outputs[rows]).mean(axis=0)


def of_categories(predict: Predict, columns: Columns, name: str, texts: list[str]) -> Array:
    """Return the mean outputs [texts, outputs] of rows in which the column is each text in turn."""
    count = min(SAMPLE, len(columns[name]))
    rows = take(columns, np.arange(count))
    return np.array([_matrix(predict(rows | {name: [text] * count})).mean(axis=0) for text in texts])


def _matrix(outputs: Array) -> Array:
    return outputs.reshape(len(outputs), -1)
