"""The value curve of a binary model as lines to draw: what it is worth a month by the threshold of its decision."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from gitops.reporting.context import Context

#: Threshold and amount of each point, by rising threshold.
Line = list[tuple[float, float]]


def lines(context: Context) -> dict[str, Line]:
    """Return the lines by name, the candidate's first; none where there is no curve.

    Where today's way is to answer all rows alike, it is one line with that answer's.
    """
    curve = context.value_curve
    if not curve or not context.metrics:
        return {}
    negative, positive = context.metrics["confusion"]["classes"]
    names = {"all": f"{positive} for all", "none": f"{negative} for all", "today": "today"}
    for column in ("all", "none"):
        if "today" in names and curve[0][column] == curve[0]["today"]:
            del names["today"]
            names[column] += " (today)"
    found = {"candidate": _line(curve, "model")}
    if context.production_value and context.production_value.curve:
        found["production"] = _line(context.production_value.curve, "model")
    return found | {name: _line(curve, column) for column, name in names.items()}


def lowest(drawn: dict[str, Line], value: dict[str, Any]) -> float:
    """Return the amount below which drawing would squeeze what matters: the best of each line, and what is chosen.

    `value` is that of metrics.json. It lies as far below today's way and the candidate as the best of all is above the
    worse of them, unless no line goes there.
    """
    amounts = [[amount for _, amount in line] for line in drawn.values()]
    best, least = max(map(max, amounts)), min(float(value[key]["value"]) for key in ("today", "model"))
    return max(min(map(min, amounts)), least - (best - least))


def at(line: Line, thresholds: list[float]) -> list[float]:
    """Return a line's amounts at other thresholds: between two of its own that of the lower one."""
    own = [threshold for threshold, _ in line]
    return [line[max(0, bisect_right(own, threshold) - 1)][1] for threshold in thresholds]


def _line(curve: list[dict[str, float]], column: str) -> Line:
    return [(point["threshold"], point[column]) for point in curve]
