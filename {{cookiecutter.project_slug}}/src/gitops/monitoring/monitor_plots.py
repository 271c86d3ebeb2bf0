"""Plots of the monitor's page: requests beside the release's test rows."""

from __future__ import annotations

from functools import partial
from typing import Any

from gitops.core import artifacts
from gitops.rendering.html import BLUE, GREY

#: Columns that the page plots, at most.
PLOTS = 20

#: Values of a category that a plot shows, at most.
VALUES = 12


def failures(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the checks that failed, those first that are furthest beyond their limit."""
    failed = [check for check in verdict["checks"] if not check["passed"]]
    return sorted(failed, key=lambda check: -check["value"] / max(check["limit"], 1e-9))


def plots(verdict: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot: the answers, and each column that has failed a check."""
    frames = (
        (artifacts.MONITOR_OUTPUTS, artifacts.MONITOR_REFERENCE_OUTPUTS),
        (artifacts.MONITOR_WINDOW, artifacts.MONITOR_REFERENCE),
    )
    (answers, expected), (window, reference) = ([artifacts.read_parquet(path) for path in pair] for pair in frames)
    if answers.empty:
        return []
    classes = facts["schema"]["target"]["classes"]
    binary = len(classes) == 2
    column = f"p_{classes[-1]}" if binary else "prediction"
    draw = _values if classes and not binary else _histogram
    title = f"Probability of {classes[-1]}" if binary else "Predictions"
    drawn: list[tuple[str, Any]] = [(title, partial(draw, new=answers[column], old=expected[column]))]
    dtypes = {feature["name"]: feature["dtype"] for feature in facts["schema"]["features"]}
    of_kind = {"number": _histogram, "datetime": _dates}
    # A refused request has left no value to draw.
    drifted = [check["column"] for check in failures(verdict) if check["check"] != "refused requests"]
    for name in [*dict.fromkeys(name for name in drifted if name in dtypes)][:PLOTS]:
        draw = of_kind.get(dtypes[name], _values)
        drawn.append((name, partial(draw, new=window[name], old=reference[name])))
    return drawn


def _histogram(axes: Any, new: Any, old: Any) -> None:
    import numpy as np

    if new.isna().any() or old.isna().any():
        axes.set_xlabel(f"missing: {new.isna().mean():.1%} of the requests, {old.isna().mean():.1%} of the test rows")
    new, old = new.dropna(), old.dropna()
    both = np.concatenate([new, old])
    # One value far out would leave all others a single bar.
    low, high = np.quantile(both, [0.005, 0.995]) if len(both) else (0, 1)
    edges = np.histogram_bin_edges(both.clip(low, high), bins=30)
    for column, colour in ((old, GREY), (new, BLUE)):
        weights = np.full(len(column), 1 / max(1, len(column)))
        axes.hist(column.clip(low, high), bins=edges, weights=weights, color=colour, alpha=0.6)
    axes.set(ylabel="share of rows")


def _dates(axes: Any, new: Any, old: Any) -> None:
    """Draw seconds since 1970 as dates, which matplotlib counts in days."""
    _histogram(axes, new / 86400, old / 86400)
    axes.xaxis_date()
    axes.tick_params(axis="x", rotation=30)


def _values(axes: Any, new: Any, old: Any) -> None:
    shares = [column.fillna("(missing)").value_counts(normalize=True) for column in (new, old)]
    shown = shares[0].add(shares[1], fill_value=0).nlargest(VALUES).index
    names = [str(value)[:20] for value in shown]
    for offset, share, colour in ((-0.2, shares[1], GREY), (0.2, shares[0], BLUE)):
        places = [place + offset for place in range(len(shown))]
        axes.bar(places, [share.get(value, 0) for value in shown], width=0.4, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
    axes.set(ylabel="share of rows")
