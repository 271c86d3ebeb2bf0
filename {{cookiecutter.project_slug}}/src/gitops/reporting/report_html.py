"""The report as one HTML file: the same sections, with drawn plots in place of the Mermaid chart."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from gitops.core import artifacts
from gitops.rendering.html import BLUE, GREY, ORANGE, document
from gitops.reporting.report_facts import Facts

MERMAID = re.compile(r"^(`{3,})mermaid\n.*?^\1$\n?", re.MULTILINE | re.DOTALL)


def page(markdown: str, facts: Facts) -> str:
    """Return the HTML page of the report `markdown`, its plots drawn from the fresh results."""
    return document(f"{facts.settings.package.model_name}: report", MERMAID.sub("", markdown), _plots(facts))


def _plots(facts: Facts) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot that the fresh results allow."""
    plots: list[tuple[str, Any]] = []
    if facts.curve:
        plots.append(("Learning curve", lambda axes: _learning_curve(axes, facts.curve)))
    if not facts.metrics:
        return plots
    if facts.production:
        plots.append(("Against production", lambda axes: _intervals(axes, facts)))
    drawings = {"roc": _roc, "calibration": _calibration, "residuals": _residuals}
    for name, draw in drawings.items():
        path = artifacts.PLOTS / f"{name}.csv"
        if path.exists():
            plots.append(
                (name.upper() if name == "roc" else name.title(), lambda axes, d=draw, p=path: d(axes, pd.read_csv(p)))
            )
    if "confusion" in facts.metrics:
        plots.append(("Confusion", lambda axes: _confusion(axes, facts.metrics)))
    return plots


def _learning_curve(axes: Any, curve: list[dict[str, float]]) -> None:
    epochs = [row["epoch"] for row in curve]
    best = min(curve, key=lambda row: row["val_loss"])
    axes.plot(epochs, [row["train_loss"] for row in curve], color=GREY, label="training")
    axes.plot(epochs, [row["val_loss"] for row in curve], color=BLUE, label="validation")
    axes.axvline(best["epoch"], color=ORANGE, linestyle=":", label=f"best: epoch {best['epoch']:.0f}")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(frameon=False)


def _intervals(axes: Any, facts: Facts) -> None:
    """Candidate and production side by side, each metric on a scale of its own."""
    if facts.metrics is None or facts.production is None:
        return
    old = facts.production.record.metrics
    names = [name for name in facts.metrics["metrics"] if name in old]
    for place, name in enumerate(reversed(names)):
        now, before = facts.metrics["metrics"][name], old[name].model_dump()
        width = max(now["high"], before["high"]) - min(now["low"], before["low"]) or 1.0
        for score, offset, colour in ((now, 0.12, BLUE), (before, -0.12, GREY)):
            low, value, high = ((score[key] - before["value"]) / width for key in ("low", "value", "high"))
            axes.plot([low, high], [place + offset] * 2, color=colour)
            axes.plot(value, place + offset, "o", color=colour)
            axes.annotate(
                f"{score['value']:.4g}", (high, place + offset), xytext=(4, -3), textcoords="offset points", size=8
            )
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xticks([])
    axes.margins(x=0.2)
    axes.set_xlabel("blue: candidate, grey: production, 95 % intervals")


def _roc(axes: Any, plot: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    axes.plot(plot["fpr"], plot["tpr"], color=BLUE)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")


def _calibration(axes: Any, plot: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    axes.plot(plot["predicted"], plot["observed"], "o-", color=BLUE)
    axes.set(xlabel="predicted probability", ylabel="observed share", aspect="equal")


def _residuals(axes: Any, plot: pd.DataFrame) -> None:
    ends = [plot.min().min(), plot.max().max()]
    axes.plot(ends, ends, color=GREY, linestyle=":")
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
    names = [name if len(name) <= 20 else name[:19] + "…" for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="actual")
