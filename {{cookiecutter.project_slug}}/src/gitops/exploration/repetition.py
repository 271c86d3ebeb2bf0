"""Rows that repeat others: equal in all features, with the same or another target, in one split or in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gitops.exploration.tables import Array, Split
from gitops.tabular import groups


@dataclass(frozen=True)
class Repetition:
    """Rows of a split: those that repeat an earlier one of it in all features; those that share all features with one
    of it that has another target; those whose features a row of the first split has too, None for that itself.
    """

    repeated: int
    conflicting: int
    shared: int | None


def count(splits: list[Split], features: list[str], target: str | None) -> dict[str, Repetition]:
    """Return the counts of each split, of all of its rows, by a 64-bit hash of each row."""
    found: dict[str, Repetition] = {}
    first: Array | None = None
    for split in splits:
        hashes, whole = _hashes(split, features, target)
        distinct = np.unique(hashes)
        _, at = np.unique(whole, return_index=True)
        values, targets = np.unique(hashes[at], return_counts=True)  # rows of one hash with so many targets
        conflicting = int(np.isin(hashes, values[targets > 1]).sum())
        shared = None if first is None else int(np.isin(hashes, first).sum())
        found[split.name] = Repetition(len(hashes) - len(distinct), conflicting, shared)
        first = distinct if first is None else first
    return found


def _hashes(split: Split, features: list[str], target: str | None) -> tuple[Array, Array]:
    """Return the hash of each row's features, and of its features and target, [rows] (uint64)."""
    names = [*features, *([target] if target else [])]
    of_features: list[Any] = []
    of_rows: list[Any] = []
    for part in split.parts(names):
        of_features.append(groups.hashes(part.select(features)))
        of_rows.append(groups.hashes(pa.table(part.columns, names=names)))
    empty = np.empty(0, np.uint64)
    return np.concatenate([empty, *of_features]), np.concatenate([empty, *of_rows])
