"""Groups of rows that belong together: they share an id, or they are equal in all features.

A link numbers the rows so that rows with the same number belong together; a group is what several links connect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gitops.core.sections import Data
from gitops.tabular import schema

#: Link or groups: int64 [rows], 0, 1, ... in the order of the numbers' first rows.
Numbers = np.ndarray[Any, np.dtype[np.int64]]


def links(frame: pd.DataFrame, data: Data) -> list[Numbers]:
    """Return the links that keep rows of one split together: of data.id, and of equal features where they count."""
    found = [by_id(frame, data.id)] if data.id is not None else []
    if data.duplicates != "keep" and (same := equal(frame[schema.feature_names(frame, data)])).any():
        found.append(same)  # where all rows are equal, columns are constant or empty: schema.py and checks say which
    return found


def by_id(frame: pd.DataFrame, column: str) -> Numbers:
    """Return the link of rows that share an id; a row without one is alone."""
    codes, _ = pd.factorize(frame[column])
    return _numbered(np.where(codes < 0, np.arange(len(frame)) + len(frame), codes))


def equal(frame: pd.DataFrame) -> Numbers:
    """Return the link of rows that are equal in all columns; a missing value equals a missing value.

    Only rows whose hash is repeated are compared: in most tables few.
    """
    alike = np.flatnonzero(pd.Series(_hashes(frame)).duplicated(keep=False))
    codes = np.zeros(len(alike), np.int64)
    for _, column in frame.iloc[alike].items():
        values, known = pd.factorize(column)
        codes = _numbered(codes * (len(known) + 1) + values + 1)
    numbers = np.arange(len(frame))
    numbers[alike] = alike[first_rows(codes)]
    return _numbered(numbers)


def _hashes(frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return a hash of each row, the same for equal rows."""
    hashes = np.zeros(len(frame), np.uint64)
    for _, column in frame.items():
        if pd.api.types.is_float_dtype(column):
            values = column.to_numpy(np.float64) + 0.0  # -0.0 equals 0.0
            values[np.isnan(values)] = np.nan  # which has many patterns of bits
            bits = values.view(np.uint64)
        else:
            bits = pd.factorize(column)[0].astype(np.uint64)
        hashes = (hashes ^ bits) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 / the golden ratio
        hashes ^= hashes >> np.uint64(32)
    return hashes


def connect(links: Sequence[Numbers], rows: int) -> Numbers:
    """Return the groups of `rows` rows: the connected components of at most two links."""
    if not links:
        return np.arange(rows)
    first, *others = map(_numbered, links)
    if not others:
        return first
    from scipy.sparse import coo_array  # late: only tables with two links need it
    from scipy.sparse.csgraph import connected_components

    second = others[0] + rows  # the nodes of the graph are the numbers of both links, its edges the rows
    graph = coo_array((np.ones(rows, np.int8), (first, second)), shape=(2 * rows, 2 * rows))
    return _numbered(connected_components(graph, directed=False)[1][first])


def first_rows(link: Numbers) -> Numbers:
    """Return for each row the position of the first row of its number."""
    return np.unique(link, return_index=True)[1][link]


def _numbered(values: Numbers) -> Numbers:
    return pd.factorize(values)[0].astype(np.int64)
