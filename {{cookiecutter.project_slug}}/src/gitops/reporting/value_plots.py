"""The page's pictures of business value: the value curve over the threshold, and the decision curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gitops.core.value import Value
from gitops.rendering.amounts import amount
from gitops.rendering.html import BLUE, GREY, ORANGE, verbatim
from gitops.reporting import value_curve
from gitops.reporting.context import Context

if TYPE_CHECKING:
    import pandas as pd

#: Colour and line style, in the order of the lines; the candidate's and production's have colours of their own.
STYLES = ((GREY, "--"), (GREY, ":"), (ORANGE, "-"))


def value_over_threshold(axes: Any, plot: pd.DataFrame, context: Context) -> None:
    """Draw what candidate, production and the ways without a model are worth a month, and mark the threshold."""
    lines = value_curve.lines(context)
    if not lines or not context.metrics or not context.decision:
        return
    found, styles = context.metrics["value"], iter(STYLES)
    low = value_curve.lowest(lines, found)
    for name, line in lines.items():
        colour, style = {"candidate": (BLUE, "-"), "production": (BLUE, "--")}.get(name) or next(styles)
        top = max(value for _, value in line)
        label = verbatim(name) if top >= low else f"{verbatim(name)}: {amount(top)}, further below"
        axes.plot(*zip(*line, strict=True), color=colour, linestyle=style, label=label)
    threshold = context.decision["threshold"]
    chosen = value_curve.at(lines["candidate"], [threshold])
    axes.plot([threshold], chosen, "o", color=ORANGE, label=f"chosen: from {threshold:.3g} on")
    best = max(value for line in lines.values() for _, value in line)
    margin = 0.05 * ((best - low) or abs(best) or 1)
    axes.set_ylim(low - margin, best + margin)
    axes.set(xlabel="threshold", ylabel=f"{verbatim(found['unit'])} a month")
    axes.yaxis.set_major_formatter(lambda value, _: amount(value))
    _legend(axes)


def net_benefit(axes: Any, plot: pd.DataFrame, context: Context) -> None:
    """Draw the decision curve (Vickers and Elkin, 2006), and the threshold probability of the amounts in `value`."""
    negative, positive = map(verbatim, context.metrics["confusion"]["classes"]) if context.metrics else ("none", "all")
    for name, label, colour, style in (
        ("all", f"{positive} for all", GREY, "--"),
        ("none", f"{negative} for all", GREY, ":"),
        ("model", "candidate", BLUE, "-"),
    ):
        axes.plot(plot["probability"], plot[name], color=colour, linestyle=style, label=label)
    probability = break_even(context.settings.value, context.metrics["confusion"]["classes"] if context.metrics else [])
    if probability is not None:
        axes.axvline(probability, color=ORANGE, linestyle=":", label=f"by the amounts in value: {probability:.3g}")
    # Towards 1 the line of "all" falls without end, and what matters is above 0.
    top = max(plot["model"].max(), plot["all"].max(), 0.01)
    axes.set_ylim(-0.25 * top, 1.1 * top)
    axes.set(xlabel="threshold probability", ylabel="net benefit, per decision")
    _legend(axes)


def break_even(value: Value | None, classes: list[str]) -> float | None:
    """Return the probability from which on answering positive pays: what a needless one costs, as a part of that and
    what a right one gains (Elkan, 2001, "The Foundations of Cost-Sensitive Learning"). None where it never is between.
    """
    if value is None or value.answers is None or {*value.answers} != {*classes}:
        return None
    negative, positive = classes
    cost = value.answers[negative][negative] - value.answers[negative][positive]
    gain = value.answers[positive][positive] - value.answers[positive][negative]
    return cost / (cost + gain) if cost > 0 and gain > 0 else None


def _legend(axes: Any) -> None:
    """Put the legend below the picture, where it hides no line."""
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
