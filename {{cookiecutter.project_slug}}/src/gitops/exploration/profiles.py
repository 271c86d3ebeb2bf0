"""What the page says of a column: exact counts of all rows of all splits, read one column at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gitops.exploration import drift, targets
from gitops.exploration.tables import Array, Split
from gitops.exploration.targets import Target
from gitops.tabular import cells

#: Bars of a number's histogram; bins of a number, and categories, that are set against the target, those missing apart.
BARS, BINS = 30, 10

#: Different texts of a column that are counted one by one; of more, the most frequent.
TEXTS = 10_000

#: What a bin of missing values, and one of all other categories, is called.
MISSING, OTHER = "(missing)", "(other)"


@dataclass
class Profile:
    """A column. Counts and fractions are by the name of the split; `main`, the first, is the one explored in full.

    `counts`: rows by bar, of `labels`. `bins`: labels, rows, and what `targets.by_bin` returns. `drift`: from main to
    each other split, of the known values; `chance`: what it may be without any. `statistics`: of a number or date.
    """

    name: str
    dtype: str
    rows: dict[str, int]
    missing: dict[str, int] = field(default_factory=dict)
    distinct: int = 0
    statistics: dict[str, float] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    bins: list[tuple[str, int, list[float]]] = field(default_factory=list)
    association: float | None = None
    drift: dict[str, float] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)  # rows with a category that main lacks

    @property
    def main(self) -> str:
        """The split that is explored in full."""
        return next(iter(self.rows))

    def fraction_missing(self, split: str) -> float:
        """Return the fraction of a split's rows in which the column is missing."""
        return self.missing[split] / max(1, self.rows[split])


def of(name: str, splits: list[Split], target: Target | None, level: float) -> Profile:
    """Return the profile of a column; with `target`, what it says of that.

    `level` is the probability with which a drift is marked that is none.
    """
    columns = {split.name: split.column(name) for split in splits}
    dtype = cells.dtype(next(iter(columns.values())).type) or "category"
    profile = Profile(name, dtype, {split.name: split.rows for split in splits})
    profile.missing = {split: column.null_count for split, column in columns.items()}
    (_numbers if dtype in ("number", "datetime") else _categories)(profile, columns, target, level)
    return profile


def _numbers(profile: Profile, columns: dict[str, pa.ChunkedArray], target: Target | None, level: float) -> None:
    values = {split: _floats(column) for split, column in columns.items()}
    ranked = {split: np.sort(each[~np.isnan(each)]) for split, each in values.items()}
    profile.missing = {split: len(values[split]) - len(ranked[split]) for split in values}
    main = ranked[profile.main]
    if len(main):
        profile.distinct = 1 + int(np.count_nonzero(np.diff(main)))
        profile.statistics = _statistics(main)
        _bars(profile, ranked)
    for split, each in [*ranked.items()][1:]:
        profile.chance[split] = drift.by_chance(len(main), len(each), None, level)
        if len(main) and len(each):
            profile.drift[split] = drift.kolmogorov_smirnov(main, each)
    if target is not None and len(main):
        inner = _inner_edges(main, profile.distinct)
        rows = values[profile.main]
        codes = np.searchsorted(inner, rows, side="left")
        write = _writer(profile.dtype)
        texts = [write(edge) for edge in inner]
        if profile.distinct == len(inner) + 1:  # each value is a bin
            names = [*texts, write(main[-1])]
        else:
            middle = [f"{low} – {high}" for low, high in pairwise(texts)]
            if profile.dtype == "datetime":  # two dates are too long
                middle = [f"to {high}" for high in texts[1:]]
            names = [f"≤ {texts[0]}", *middle, f"> {texts[-1]}"]
        codes[np.isnan(rows)] = len(names)
        _against(profile, codes, names, target)


def _floats(column: pa.ChunkedArray) -> Array:
    """Return numbers, or seconds since 1970, as float64 [rows], NaN where one is missing."""
    if pa.types.is_temporal(column.type):
        column = pc.divide(column.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
    found: Array = column.cast(pa.float64(), safe=False).to_numpy().astype(float)
    return found


def _statistics(ranked: Array) -> dict[str, float]:
    places = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    found = {name: float(ranked[round(at * (len(ranked) - 1))]) for name, at in places.items()}
    return found | {"mean": float(ranked.mean()), "std": float(ranked.std())}


def _bars(profile: Profile, ranked: dict[str, Array]) -> None:
    """Count the values by bar: by value where there are few, else in equal steps; the outer bars have all beyond."""
    main, write = ranked[profile.main], _writer(profile.dtype)
    if profile.distinct <= BINS:
        middles = np.unique(main)
        inner = middles[:-1] + np.diff(middles) / 2
        profile.labels = [write(value) for value in middles]
    else:
        # A single outlier would squeeze all other values into one bar.
        low, high = (float(main[round(at * (len(main) - 1))]) for at in (0.005, 0.995))
        if low == high:
            low, high = float(main[0]), float(main[-1])
        edges = np.linspace(low, high, BARS + 1)
        inner = edges[1:-1]
        profile.labels = [f"{write(a)} – {write(b)}" for a, b in pairwise(edges)]
    for split, each in ranked.items():
        ends = [0, *np.searchsorted(each, inner, side="left").tolist(), len(each)]
        profile.counts[split] = np.diff(ends).tolist()


def _inner_edges(ranked: Array, distinct: int) -> Array:
    """Return the upper ends of all bins but the last: of tenths of the rows, or of single values where they are few."""
    if distinct <= BINS:
        return np.unique(ranked)[:-1]
    places = np.round(np.arange(1, BINS) / BINS * (len(ranked) - 1)).astype(int)
    edges = np.unique(ranked[places])
    edges = edges[edges < ranked[-1]]
    return edges if len(edges) else ranked[[np.searchsorted(ranked, ranked[-1]) - 1]]


def _categories(profile: Profile, columns: dict[str, pa.ChunkedArray], target: Target | None, level: float) -> None:
    texts = {split: column.cast(pa.string()) for split, column in columns.items()}
    found = {split: _counts(column) for split, column in texts.items()}
    counts = {split: each for split, (each, _) in found.items()}
    main, profile.distinct = found[profile.main]
    top = [*main][:BINS] if len(main) <= BINS else [*main][: BINS - 1]
    others = [OTHER] if len(top) < profile.distinct else []
    profile.labels = [*top, *others]
    for split, each in counts.items():
        known = profile.rows[split] - profile.missing[split]
        shown = [each.get(text, 0) for text in top]
        profile.counts[split] = [*shown, known - sum(shown)][: len(profile.labels)]
    for split, each in [*counts.items()][1:]:
        first, second = (profile.rows[name] - profile.missing[name] for name in (profile.main, split))
        profile.chance[split] = drift.by_chance(first, second, len({*main, *each}), level)
        if main and each:
            profile.drift[split] = drift.cramers_v(main, each)
            if profile.distinct <= TEXTS:
                profile.new[split] = sum(count for text, count in each.items() if text not in main)
    if target is not None and main:
        column = texts[profile.main]
        codes = pc.index_in(column, pa.array(top, pa.string())).fill_null(len(top)).to_numpy().astype(np.int64)
        codes[column.is_null().to_numpy()] = len(profile.labels)
        _against(profile, codes, profile.labels, target)
        if others:  # all categories count for the association
            encoded = column.combine_chunks().dictionary_encode()
            every = encoded.indices.fill_null(profile.distinct).to_numpy(zero_copy_only=False).astype(np.int64)
            profile.association = targets.association(every, profile.distinct + 1, target)


def _counts(column: pa.ChunkedArray) -> tuple[dict[str, int], int]:
    """Return how often each text is there, the most frequent first, TEXTS at most; and how many texts there are."""
    found = pc.value_counts(column.drop_null())
    counts = found.field("counts").to_numpy()
    order = np.argsort(-counts, kind="stable")[:TEXTS]
    texts = found.field("values").take(pa.array(order)).to_pylist()
    return dict(zip(texts, counts[order].tolist(), strict=True)), len(found)


def _against(profile: Profile, codes: Array, names: list[str], target: Target) -> None:
    """Set the bins [rows], the last one that of missing values, against the target."""
    names = [*names, MISSING]
    rows = np.bincount(codes, minlength=len(names)).tolist()
    found = targets.by_bin(codes, len(names), target)
    profile.bins = [each for each in zip(names, rows, found, strict=True) if each[1] or each[0] != MISSING]
    profile.association = targets.association(codes, len(names), target)


def _writer(dtype: str) -> Callable[[float], str]:
    return moment if dtype == "datetime" else number


def number(value: float) -> str:
    """Return a number in a few digits."""
    if abs(value) < 1e6 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def moment(seconds: float) -> str:
    """Return seconds since 1970 as a date, with the time of day where it has one."""
    found = datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
    return found.date().isoformat() if seconds % 86400 == 0 else found.isoformat(" ", "minutes").removesuffix("+00:00")
