"""How many values of each feature are missing, out of range or unseen, counted over all rows of a window in parts.

A part is a table whose columns are the features in their stored form: numbers and dates as doubles, NaN or null where
missing, categories as texts, booleans as numbers or texts. What is counted here is exact however large the window is;
drift.py measures distributions on a sample.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that Deepchecks gets of a window, at most, and of the reference: it works in memory, and distributions of more
#: rows differ by less than any limit.
SAMPLE = 100_000

#: Unseen categories that are remembered, at most: beyond it the rarest half is forgotten, but stays counted.
REMEMBERED = 10_000

#: Unseen categories that are named, and characters of each.
NAMED, SHOWN = 5, 60

Quality = dict[str, dict[str, Any]]


class Counts:
    """The counts of the rows so far."""

    def __init__(self, features: list[dict[str, Any]]) -> None:
        self.features = features
        self.rows = 0
        self._missing = dict.fromkeys((feature["name"] for feature in features), 0)
        self._outside = dict.fromkeys(self._missing, 0)
        self._ends: dict[str, tuple[float, float]] = {}
        self._unseen: dict[str, Counter[str]] = {name: Counter() for name in self._missing}

    def add(self, table: pa.Table) -> None:
        """Count the rows of a part."""
        self.rows += table.num_rows
        for feature in self.features:
            column = table[feature["name"]]
            if feature["dtype"] == "category":
                self._add_categories(feature, column)
            else:
                self._add_values(feature, column)

    def _add_values(self, feature: dict[str, Any], column: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        name = feature["name"]
        present = pc.drop_null(column)
        if pa.types.is_floating(present.type):
            present = present.filter(pc.invert(pc.is_nan(present)))
        self._missing[name] += len(column) - len(present)
        if feature["dtype"] == "number" and len(present):
            ends = pc.min_max(present).as_py()
            if ends["min"] < feature["min"] or ends["max"] > feature["max"]:
                wrong = pc.or_(pc.less(present, feature["min"]), pc.greater(present, feature["max"]))
                self._add_outside(name, present.filter(wrong))

    def _add_outside(self, name: str, wrong: Any) -> None:
        import pyarrow.compute as pc

        ends = pc.min_max(wrong).as_py()
        low, high = self._ends.get(name, (ends["min"], ends["max"]))
        self._outside[name] += len(wrong)
        self._ends[name] = min(low, ends["min"]), max(high, ends["max"])

    def _add_categories(self, feature: dict[str, Any], column: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        name = feature["name"]
        if pa.types.is_null(column.type):
            column = column.cast(pa.string())
        present = pc.drop_null(column)
        self._missing[name] += len(column) - len(present)
        known = pa.array([*feature["categories"]], pa.string())
        unseen = present.filter(pc.invert(pc.is_in(present, value_set=known)))
        if len(unseen):
            self._outside[name] += len(unseen)
            counted = pc.value_counts(unseen)
            found = self._unseen[name]
            for value, count in zip(
                counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
            ):
                found[value[:SHOWN]] += count
            if len(found) > REMEMBERED:
                self._unseen[name] = Counter(dict(found.most_common(REMEMBERED // 2)))

    def result(self) -> Quality:
        """Return what was counted of each feature.

        `missing`; `outside`, out of range or unseen; `low` and `high` of those out of range, None where there are none;
        `unseen`, the most frequent ones.
        """
        found: Quality = {}
        for feature in self.features:
            name = feature["name"]
            low, high = self._ends.get(name, (None, None))
            counted = sorted(
                self._unseen[name].items(), key=lambda found: (-found[1], found[0])
            )  # in any order of parts
            unseen = [value for value, _ in counted[:NAMED]]
            counts = {"missing": self._missing[name], "outside": self._outside[name]}
            found[name] = counts | {"low": low, "high": high, "unseen": unseen}
        return found
