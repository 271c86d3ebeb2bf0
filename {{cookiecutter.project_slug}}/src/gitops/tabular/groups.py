"""Groups of rows that belong together: they share an id, or they are equal in all features.

A link numbers the rows so that rows with the same number belong together; a group is what several links connect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from gitops.core.sections import Data

if TYPE_CHECKING:
    from gitops.tabular.keys import Keys

#: Link or groups: int64 [rows], 0, 1, ... in the order of the numbers' first rows.
Numbers = np.ndarray[Any, np.dtype[np.int64]]

Hashes = NDArray[np.uint64]

#: A hash of nothing, and what stands for a missing value: 2**64 divided by the golden ratio, and by its square.
START, MISSING = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x61C8864680B583EB)

#: The steps of MurmurHash3's 64-bit finaliser (Appleby, 2011): a shift, and a factor.
STEPS = ((33, np.uint64(0xFF51AFD7ED558CCD)), (33, np.uint64(0xC4CEB9FE1A85EC53)), (33, None))


def links(keys: Keys, data: Data) -> list[Numbers]:
    """Return the links that keep rows of one split together: of data.id, and of equal features where they count."""
    found = [numbered(keys.ids)] if keys.ids is not None else []
    if data.duplicates != "keep" and keys.features is not None and (same := numbered(keys.features)).any():
        found.append(same)  # where all rows are equal, columns are constant or empty: schema.py and checks say which
    return found


def by_id(ids: pa.ChunkedArray) -> Numbers:
    """Return the link of rows that share an id; a row without one is alone."""
    _, codes = _encoded(ids)
    alone = codes < 0
    return codes if not alone.any() else numbered(np.where(alone, np.arange(len(codes)) + len(codes), codes))


def hashes(table: pa.Table) -> Hashes:
    """Return a hash of each row [rows], the same for rows that are equal in all columns.

    A missing value equals a missing value, -0.0 equals 0.0. Of n different rows two have the same hash with a
    probability of n**2 / 2**65: 3e-6 for ten million.
    """
    found = np.full(table.num_rows, START)
    for column in table.columns:
        found ^= _bits(column)
        _mix(found)
    return found


def joined(hashes_: Hashes, codes: NDArray[Any]) -> Hashes:
    """Return the hash of each row with one more column, of numbers."""
    found: Hashes = (codes.astype(np.float64) + 0.0).view(np.uint64)
    found ^= hashes_
    _mix(found)
    return found


def _bits(column: pa.ChunkedArray) -> Hashes:
    """Return 64 bits for each value, the same for equal ones."""
    type_ = column.type
    if pa.types.is_string(type_):
        return _texts(column)
    if pa.types.is_floating(type_):
        values = column.to_numpy().astype(np.float64) + 0.0  # a copy, in which -0.0 is 0.0
        missing, bits = np.isnan(values), values.view(np.uint64)
    else:
        whole = column.cast(pa.int64()).combine_chunks()
        missing = whole.is_null().to_numpy(zero_copy_only=False)
        bits = whole.fill_null(0).to_numpy().astype(np.uint64)
    if missing.any():
        bits[missing] = MISSING
    found: Hashes = bits
    return found


def _texts(column: pa.ChunkedArray) -> Hashes:
    """Return SipHash's 64 bits of each text, which do not depend on what other texts there are."""
    texts, codes = _encoded(column)
    known = pd.util.hash_array(texts.to_numpy(zero_copy_only=False), categorize=False)
    found: Hashes = np.append(known, MISSING)[codes]  # at -1 is the last one
    return found


def _encoded(column: pa.ChunkedArray) -> tuple[pa.Array, Numbers]:
    """Return the different values of a column, and for each row the position of its own, -1 for a missing one."""
    chunks = column.dictionary_encode().chunks  # one dictionary for all of them
    codes = [chunk.indices.fill_null(-1).to_numpy().astype(np.int64) for chunk in chunks]
    return (chunks[0].dictionary if chunks else pa.array([], column.type)), np.concatenate([*codes, np.empty(0, int)])


def _mix(values: Hashes) -> None:
    for shift, factor in STEPS:
        values ^= values >> np.uint64(shift)
        if factor is not None:
            values *= factor


def connect(links: Sequence[Numbers], rows: int) -> Numbers:
    """Return the groups of `rows` rows: the connected components of at most two links, as `numbered` returns them."""
    if not links:
        return np.arange(rows)
    first, *others = links
    if not others:
        return first
    from scipy.sparse import coo_array  # late: only tables with two links need it
    from scipy.sparse.csgraph import connected_components

    second = others[0] + rows  # the nodes of the graph are the numbers of both links, its edges the rows
    graph = coo_array((np.ones(rows, np.int8), (first, second)), shape=(2 * rows, 2 * rows))
    return numbered(connected_components(graph, directed=False)[1][first])


def first_rows(link: Numbers) -> Numbers:
    """Return for each row the position of the first row of its number."""
    rows = len(link)
    first = np.empty(int(link.max(initial=-1)) + 1, np.int64)
    first[link[::-1]] = np.arange(rows)[::-1]  # of several rows the last that is written, the first of the table
    return first[link]


def numbered(values: NDArray[Any]) -> Numbers:
    """Return values as a link: the same number for the same value.

    Values that are not repeated, in most tables nearly all, are told apart by sorting, which takes less memory and time
    than a hash table of them.
    """
    ordered = np.sort(values)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    if not len(again):
        return np.arange(len(values))
    alike = np.flatnonzero(np.isin(values, pd.unique(again)))
    first = np.arange(len(values))
    first[alike] = alike[first_rows(pd.factorize(values[alike])[0])]
    number = np.cumsum(first == np.arange(len(values))) - 1
    return number[first]
