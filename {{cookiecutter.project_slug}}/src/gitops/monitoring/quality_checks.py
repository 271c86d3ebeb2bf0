"""Checks of counts: values of a window that are missing, unseen or out of range, against those of the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gitops.core.sections import Monitor
from gitops.monitoring.critical_values import critical_fraction
from gitops.monitoring.quality import Counts

if TYPE_CHECKING:
    import pandas as pd

Check = dict[str, Any]


def result(name: str, column: str | None, value: float, limit: float, details: str) -> Check:
    """Return a check of reports/monitor.json; it passes unless the value is above its limit."""
    numbers = {"value": round(float(value), 4), "limit": round(float(limit), 4)}
    return {"check": name, "column": column, **numbers, "passed": bool(value <= limit), "details": details}


def count(features: list[Any], current: pd.DataFrame) -> dict[str, Any]:
    """Return the counts of a window that is at hand as a whole."""
    import pyarrow as pa

    counts = Counts(features)
    counts.add(pa.Table.from_pandas(current, preserve_index=False))
    return {"rows": counts.rows, "features": counts.result()}


def data_quality(
    settings: Monitor, schema: dict[str, Any], features: list[Any], counted: dict[str, Any], level: float
) -> list[Check]:
    """Check each feature for values that are missing, unseen or out of range, compared with the training rows."""
    rows, train = counted["rows"], schema["rows"]["train"]
    results = []
    for feature in features:
        name, counts, missing = feature["name"], counted["features"][feature["name"]], feature["missing"]
        limit = max(missing + settings.max_missing, critical_fraction(round(missing * train), train, rows, level))
        details = f"in {missing:.1%} of the training rows"
        results.append(result("missing values", name, counts["missing"] / rows, limit, details))
        if feature["dtype"] == "number":
            limit = max(settings.max_out_of_range, critical_fraction(2, train, rows, level))  # two rows set the range
            details = f"training has {feature['min']:.4g} to {feature['max']:.4g}"
            if counts["outside"]:
                details += f", here are {counts['low']:.4g} to {counts['high']:.4g}"
            results.append(result("out of range", name, counts["outside"] / rows, limit, details))
        elif feature["dtype"] == "category":
            results.append(unseen(settings, feature["categories"], train, rows, counts, level, name))
    return results


def unseen(
    settings: Monitor, known: dict[str, float], train: int, rows: int, counts: dict[str, Any], level: float, name: str
) -> Check:
    """Check for categories that the training rows lack; `known` are theirs, with the fraction of rows of each.

    As many are expected as there were categories in one training row only (the Good-Turing estimate).
    """
    once = sum(round(fraction * train) <= 1 for fraction in known.values())
    limit = max(settings.max_unseen, critical_fraction(once, train, rows, level))
    examples = ", ".join(repr(value) for value in counts["unseen"])
    details = f"new: {examples}" if counts["outside"] else "none is new"
    return result("unseen categories", name, counts["outside"] / rows, limit, details)
