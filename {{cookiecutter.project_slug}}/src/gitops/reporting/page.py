"""The report as one HTML file: the same sections, with plots instead of the Mermaid chart."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from gitops.core import artifacts
from gitops.core.figures import number
from gitops.rendering.html import BLUE, GREY, ORANGE, document, verbatim
from gitops.reporting import explanations_plots, replay_plot, value_plots
from gitops.reporting.context import Context

#: A chart, and the paragraph that names its lines.
MERMAID = re.compile(r"^(`{3,})mermaid\n.*?^\1$\n?(\nLines of the chart[^\n]*\n)?", re.MULTILINE | re.DOTALL)


def page(markdown: str, context: Context) -> str:
    """Return the HTML page of the report `markdown` and the plots of the context's results."""
    return document(f"{context.settings.package.model_name}: report", MERMAID.sub("", markdown), _plots(context))


def _plots(context: Context) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot for which there are results."""
    plots: list[tuple[str, Any]] = []
    if context.curve:
        plots.append(("Learning curve", lambda axes: _learning_curve(axes, context.curve)))
    if not context.metrics:
        return plots
    if context.production:
        plots.append(("Against production", lambda axes: _intervals(axes, context)))
    for name, title, draw in (
        ("value", "Value a month", value_plots.value_over_threshold),
        ("decision_curve", "Decision curve", value_plots.net_benefit),
        ("roc", "ROC", _roc),
        ("calibration", "Calibration", _calibration),
        ("residuals", "Residuals", _residuals),
    ):
        path = artifacts.PLOTS / f"{name}.csv"
        if path.exists():
            plots.append((title, lambda axes, d=draw, p=path: d(axes, pd.read_csv(p), context)))
    if "confusion" in context.metrics:
        plots.append(("Confusion", lambda axes: _confusion(axes, context.metrics)))
    return plots + replay_plot.plots(context) + explanations_plots.plots(context)


def _learning_curve(axes: Any, curve: list[dict[str, float]]) -> None:
    epochs = [row["epoch"] for row in curve]
    best = min(curve, key=lambda row: row["val_loss"])
    axes.plot(epochs, [row["train_loss"] for row in curve], color=GREY, label="training")
    axes.plot(epochs, [row["val_loss"] for row in curve], color=BLUE, label="validation")
    axes.axvline(best["epoch"], color=ORANGE, linestyle=":", label=f"best: epoch {best['epoch']:.0f}")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(frameon=False)


def _intervals(axes: Any, context: Context) -> None:
    """Draw the intervals of candidate and production side by side, each metric on its own scale."""
    if context.metrics is None or context.production is None:
        return
    old = context.production.record.comparable(context.settings.value)
    names = [name for name in context.metrics["metrics"] if name in old]
    for height, name in enumerate(reversed(names)):
        now, before = context.metrics["metrics"][name], old[name].model_dump()
        width = max(now["high"], before["high"]) - min(now["low"], before["low"]) or 1.0
        for score, offset, colour in ((now, 0.12, BLUE), (before, -0.12, GREY)):
            low, value, high = ((score[key] - before["value"]) / width for key in ("low", "value", "high"))
            axes.plot([low, high], [height + offset] * 2, color=colour)
            axes.plot(value, height + offset, "o", color=colour)
            axes.annotate(
                number(score["value"]), (high, height + offset), xytext=(4, -3), textcoords="offset points", size=8
            )
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xticks([])
    axes.margins(x=0.2)
    axes.set_xlabel("blue: candidate, grey: production, 95 % intervals")


def _roc(axes: Any, plot: pd.DataFrame, context: Context) -> None:
    """Draw the curve, and on it the point of the decision."""
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    axes.plot(plot["fpr"], plot["tpr"], color=BLUE)
    if context.metrics and context.decision:
        (right, false), (missed, true) = context.metrics["confusion"]["counts"]
        point = (false / max(1, right + false), true / max(1, missed + true))
        axes.plot(*point, "o", color=ORANGE, label=f"from {context.decision['threshold']:.3g} on")
        axes.legend(frameon=False, loc="lower right")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")


def _calibration(axes: Any, plot: pd.DataFrame, _: Context) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    axes.plot(plot["predicted"], plot["observed"], "o-", color=BLUE)
    axes.set(xlabel="predicted probability", ylabel="observed fraction", aspect="equal")


def _residuals(axes: Any, plot: pd.DataFrame, _: Context) -> None:
    limits = [plot.min().min(), plot.max().max()]
    axes.plot(limits, limits, color=GREY, linestyle=":")
    axes.plot(plot["actual"], plot["predicted"], ".", color=BLUE, alpha=0.5)
    axes.set(xlabel="actual", ylabel="predicted")


def _confusion(axes: Any, metrics: Any) -> None:
    classes, counts = metrics["confusion"]["classes"], metrics["confusion"]["counts"]
    axes.imshow(counts, cmap="Blues")
    if len(classes) <= 20:
        top = max(map(max, counts))
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                colour = "white" if count > top / 2 else "black"
                axes.text(column, row, count, ha="center", va="center", color=colour)
    names = [verbatim(name if len(name) <= 20 else name[:19] + "…") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="actual")
