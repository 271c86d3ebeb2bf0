"""The pictures of explanations: importance with intervals, and what the model answers over the values of a column."""

from __future__ import annotations

from typing import Any

from gitops.rendering.html import BLUE, GREY
from gitops.reporting.context import Context
from gitops.reporting.explanations_section import SHOWN, comparable

#: Characters of a column's or a category's name.
NAME = 24

#: Panels in a row.
COLUMNS = 2


def plots(context: Context) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot for which there are results."""
    found = context.explanations
    if not found or not found["features"]:
        return []
    old = comparable(context)
    drawn: list[tuple[str, Any]] = [("Importance of columns", lambda axes: _importance(axes, found, old))]
    if found["dependence"]:
        drawn.append(("Answers over the values of columns", lambda axes: _dependence(axes, found, old)))
    return drawn


def _importance(axes: Any, found: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Draw a bar with its interval for each column, production's below the candidate's."""
    shown = found["features"][:SHOWN][::-1]
    before = {feature["name"]: feature for feature in old["features"]} if old else {}
    for height, feature in enumerate(shown):
        pairs = ((feature, 0.2, BLUE), (before.get(feature["name"]), -0.2, GREY))
        for its, offset, colour in ((its, offset if before else 0.0, colour) for its, offset, colour in pairs if its):
            axes.barh(height + offset, its["importance"], 0.35 if before else 0.6, color=colour)
            axes.plot([its["low"], its["high"]], [height + offset] * 2, color="black", linewidth=1)
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_yticks(range(len(shown)), [_name(feature["name"]) for feature in shown], parse_math=False)
    legend = "\nblue: candidate, grey: production" if before else ""
    axes.set_xlabel(f"loss of {found['metric']} when shuffled, 95 % intervals{legend}")


def _dependence(axes: Any, found: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Draw a panel for each of the most important columns; marks on its axis are quantiles of the training rows."""
    curves, before = found["dependence"], old["dependence"] if old else {}
    figure, rows = axes.figure, -(-len(curves) // COLUMNS)
    figure.set_size_inches(5, 0.6 + 1.5 * rows)
    axes.set_axis_off()
    grid = axes.get_subplotspec().subgridspec(rows, COLUMNS)
    for place, (name, curve) in enumerate(curves.items()):
        panel = figure.add_subplot(grid[place // COLUMNS, place % COLUMNS])
        panel.set_title(_name(name), fontsize=8, parse_math=False)
        panel.tick_params(labelsize=6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(y=0.15)
        other = before.get(name)
        if other and other["of"] == curve["of"]:
            _curve(panel, other, curve, GREY)
        _curve(panel, curve, curve, BLUE)
        if place % COLUMNS == 0:
            panel.set_ylabel(_name(str(curve["of"])), fontsize=6, parse_math=False)
    legend = "blue: candidate, grey: production; " if before else ""
    figure.supxlabel(f"{legend}marks: quantiles of the training rows", fontsize=6)


def _curve(panel: Any, curve: dict[str, Any], candidate: dict[str, Any], colour: str) -> None:
    """Draw a line over numbers, points over what has names: the candidate's categories, booleans and dates."""
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in [*curve["x"], *candidate["x"]]):
        panel.plot(curve["x"], curve["y"], color=colour, linewidth=1.2)
        if curve is candidate:
            low = panel.get_ylim()[0]
            panel.plot(curve["x"], [low] * len(curve["x"]), "|", color=GREY, markersize=5)
        return
    places = {str(x): place for place, x in enumerate(candidate["x"])}
    known = [(places[str(x)], y) for x, y in zip(curve["x"], curve["y"], strict=True) if str(x) in places]
    panel.plot(*zip(*known, strict=True), "o", color=colour, markersize=3) if known else None
    names = [_name(text)[:12] for text in places]
    panel.set_xticks(range(len(names)), names, rotation=30, parse_math=False)


def _name(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= NAME else line[: NAME - 1] + "…"
