"""The report's section about business value: what deciding with the candidate is worth a month, and beside what."""

from __future__ import annotations

from typing import Any

from gitops.rendering.amounts import amount, interval, more, sign, signed
from gitops.rendering.markdown import coloured, line_chart, plain, table
from gitops.reporting import value_curve
from gitops.reporting.context import Context

#: Points of the chart's lines.
POINTS = 60

#: What the sign of a gain means (amounts.sign).
SURE = {
    "🟢": "That is more than chance: the whole interval is above 0.",
    "🔴": "That is more than chance: the whole interval is below 0.",
    "⚪": "It may be chance: the interval holds 0.",
}


def value(context: Context) -> str:
    """Expected value a month of the candidate, of production and of today's way, and the value over the threshold."""
    found = (context.metrics or {}).get("value")
    if not found:
        return ""
    return "\n\n".join(
        filter(None, ["### Value", _sentence(found), _table(context, found), _note(context, found), _chart(context)])
    )


def _sentence(found: dict[str, Any]) -> str:
    """Return the gain over today's way, and whether it is sure, in words for whoever decides."""
    gain, unit = found["gain"], found["unit"]
    return (
        f"Deciding with this model is worth {more(gain, unit)} what is done today, {plain(found['today']['name'])} "
        f"(95 %: {interval(gain)}). {sign(gain)} {SURE[sign(gain)]}"
    )


def _table(context: Context, found: dict[str, Any]) -> str:
    rows = [["candidate", f"**{amount(found['model']['value'])}**", interval(found["model"]), ""]]
    if context.production:
        its = context.production_value
        score = its.score if its else None
        row = ["production", "not known", "–", _difference(its.difference if its else None)]
        if score:
            row[1:3] = amount(score["value"]), interval(score) if score["low"] is not None else "–"
        rows.append(row)
    today = found["today"]
    rows.append([f"today: {plain(today['name'])}", amount(today["value"]), interval(today), _difference(found["gain"])])
    return table(["", f"{plain(found['unit'])} a month", "95 % interval", "the candidate is worth more by"], rows)


def _difference(gain: dict[str, float] | None) -> str:
    if gain is None:
        return "–"
    return "same" if gain["low"] == gain["high"] == 0 else f"{signed(gain['value'])} ({interval(gain)}) {sign(gain)}"


def _note(context: Context, found: dict[str, Any]) -> str:
    """Return what all this counts, and what is to be known about production's value."""
    cost = f"; running the model costs {amount(found['running_cost'])}, taken off" if found["running_cost"] else ""
    note = (
        f"{amount(found['decisions'])} decisions a month{cost} (`value` in params.yaml). All this is expected of rows "
        "like the test rows; the intervals are about the choice of these."
    )
    its = context.production_value
    if its and its.basis:
        note += f" Production: {its.basis}."
    return note


def _chart(context: Context) -> str:
    """Return the chart of the value over the threshold, which a binary model has."""
    lines = value_curve.lines(context)
    if not lines or not context.metrics or not context.decision:
        return ""
    lowest = value_curve.lowest(lines, context.metrics["value"])
    below = {name: max(value for _, value in line) for name, line in lines.items()}
    below = {name: best for name, best in below.items() if best < lowest}
    thresholds = [place / (POINTS - 1) for place in range(POINTS)]
    amounts = [value_curve.at(line, thresholds) for name, line in lines.items() if name not in below]
    shown = [[max(value, lowest) for value in line] for line in amounts]
    chart = line_chart("Value a month by threshold", "threshold", thresholds, shown)
    note = f"Lines of the chart: {coloured(plain(name) for name in lines if name not in below)}. "
    note += f"The candidate's threshold is {context.decision['threshold']:.4g}."
    if shown != amounts:
        note += f" Amounts below {amount(lowest)} are drawn at the lower edge."
    note += "".join(f" Not drawn: {plain(name)}, {amount(best)}." for name, best in below.items())
    return f"{chart}\n\n{note}"
