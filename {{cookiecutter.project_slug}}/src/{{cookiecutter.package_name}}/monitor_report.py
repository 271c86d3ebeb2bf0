"""The monitor's verdict for people, a page with plots and a summary, and for Prometheus."""

from __future__ import annotations

import html
from datetime import datetime
from functools import partial
from typing import Any

from . import artifacts
from .markdown import code, details, plain, table
from .report_html import BLUE, GREY, STYLE, figure

SIGNS = {"quiet": "✅ Quiet", "drift": "⚠️ Drift", "too_small": "⏳ Too small to judge"}

#: How Prometheus is told the status.
NUMBERS = {"quiet": 0, "drift": 1, "too_small": 2}

#: Columns that the page plots, at most.
PLOTS = 20

#: Values of a category that a plot shows, at most.
VALUES = 12

Verdict = dict[str, Any]


def line(verdict: Verdict) -> str:
    """Return the verdict in one line of plain text."""
    named: dict[str, list[str]] = {}
    for check in verdict["checks"]:
        if not check["passed"]:
            named.setdefault(check["check"], []).extend([check["column"]] if check["column"] else [])
    found = [f"{name}: {_some(columns)}" if columns else name for name, columns in named.items()]
    if verdict["performance"] and verdict["performance"]["passed"] is False:
        found.append(f"performance: {verdict['performance']['reason']}")
    rows = f"{verdict['rows']} rows of model {verdict['model_version']}, {verdict['refused']} requests refused"
    return f"{SIGNS[verdict['status']]}: {'; '.join(found) or 'nothing stands out'} ({rows})"


def markdown(verdict: Verdict, facts: dict[str, Any]) -> str:
    """Return the verdict as Markdown: what failed, how well the model does, notes, and all checks folded away."""
    failed = [check for check in verdict["checks"] if not check["passed"]]
    title = f"{SIGNS[verdict['status']]}: {plain(facts['model'])} in production"
    parts = [f"## {title}", plain(_window(verdict, facts), 500)]
    if failed:
        parts.append(_checks(sorted(failed, key=lambda check: -check["value"] / max(check["limit"], 1e-9))))
    if performance := verdict["performance"]:
        sign = {True: "✅", False: "⚠️", None: "⏳"}[performance["passed"]]
        parts.append(f"{sign} Performance: {plain(performance['reason'])}")
    parts += ["\n".join(f"- {plain(note)}" for note in verdict["notes"])] if verdict["notes"] else []
    if verdict["checks"]:
        parts.append(details(f"All {len(verdict['checks'])} checks", _checks(verdict["checks"], 1000)))
    return "\n\n".join(parts) + "\n"


def page(summary: str, verdict: Verdict, facts: dict[str, Any]) -> str:
    """Return the HTML page: the summary, and plots of the predictions and of each column that has failed a check."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(summary)
    figures = "".join(figure(title, draw) for title, draw in _plots(verdict, facts))
    title = html.escape(facts["model"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: monitor</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n<h3>Requests beside the reference</h3>\n{figures}\n"
        "<p>Blue: these requests; grey: the test rows of the release.</p>\n</body></html>\n"
    )


def metrics(verdict: Verdict, facts: dict[str, Any], now: datetime) -> str:
    """Return the verdict in Prometheus' text format.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    failed: dict[str, float] = {}
    for check in verdict["checks"]:
        failed[check["check"]] = failed.get(check["check"], 0) + (not check["passed"])
    drifts = [check for check in verdict["checks"] if check["check"] == "feature drift"]
    performance = verdict["performance"] or {}
    families: list[tuple[str, str, list[tuple[dict[str, str], float | None]]]] = [
        ("status", "0 quiet, 1 drift, 2 too few rows to judge", [({}, NUMBERS[verdict["status"]])]),
        ("last_run_timestamp_seconds", "When the monitor ran.", [({}, round(now.timestamp()))]),
        ("rows", "Rows since the last judged run.", [({}, verdict["rows"])]),
        ("refused_requests", "Requests refused since the last judged run.", [({}, verdict["refused"])]),
        ("failed_checks", "Checks that failed.", [({"check": name}, count) for name, count in failed.items()]),
        ("drift", "Drift of a feature, 0 to 1.", [({"column": item["column"]}, item["value"]) for item in drifts]),
        (
            "performance",
            "The decisive metric on labelled rows.",
            [({"metric": performance.get("metric", "")}, performance.get("value"))],
        ),
    ]
    lines = []
    for name, help_text, samples in families:
        if known := [(labels, value) for labels, value in samples if value is not None]:
            lines += [f"# HELP model_monitor_{name} {help_text}", f"# TYPE model_monitor_{name} gauge"]
            about = {"model": facts["model"], "version": facts["model_version"]}
            lines += [f"model_monitor_{name}{{{_labels(about | labels)}}} {value!r}" for labels, value in known]
    return "\n".join(lines) + "\n"


def _labels(values: dict[str, str]) -> str:
    escaped = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return ",".join(f'{name}="{value.translate(escaped)}"' for name, value in values.items())


def _some(columns: list[str], most: int = 5) -> str:
    return ", ".join(columns[:most]) + (f" and {len(columns) - most} more" if len(columns) > most else "")


def _window(verdict: Verdict, facts: dict[str, Any]) -> str:
    times = f"From {verdict['from'][:16]} to {verdict['to'][:16]}" if verdict["from"] else "No request"
    beside = {"lines that cannot be read": sum(facts["broken"].values())}
    beside |= {"lines of other models": facts["other_versions"], "lines too old": facts["too_old"]}
    more = "".join(f", {count} {what}" for what, count in beside.items() if count)
    return (
        f"{times}: {verdict['rows']} rows of model {verdict['model_version']} (release {verdict['release'][:12]}), "
        f"{verdict['refused']} of {facts['requests']} requests refused, {facts['labelled']} rows with labels{more}."
    )


def _checks(checks: list[dict[str, Any]], limit: int = 40) -> str:
    rows = [
        [
            "✅" if check["passed"] else "⚠️",
            check["check"],
            code(check["column"], 60) if check["column"] else "",
            f"{check['value']:.3g}",
            f"{check['limit']:.3g}",
            plain(check["details"]),
        ]
        for check in checks
    ]
    return table(["", "check", "column", "value", "limit", "details"], rows, limit)


def _plots(verdict: Verdict, facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot."""
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
    plots: list[tuple[str, Any]] = [(title, partial(draw, new=answers[column], old=expected[column]))]
    kinds = {feature["name"]: feature["kind"] for feature in facts["schema"]["features"]}
    drifted = [check["column"] for check in verdict["checks"] if not check["passed"] and check["column"] in kinds]
    for name in [*dict.fromkeys(drifted)][:PLOTS]:
        draw = _histogram if kinds[name] in ("number", "datetime") else _values
        plots.append((name, partial(draw, new=window[name], old=reference[name])))
    return plots


def _histogram(axes: Any, new: Any, old: Any) -> None:
    import numpy as np

    new, old = new.dropna(), old.dropna()
    edges = np.histogram_bin_edges(np.concatenate([new, old]), bins=30) if len(new) + len(old) else 10
    for column, colour in ((old, GREY), (new, BLUE)):
        weights = np.full(len(column), 1 / max(1, len(column)))
        axes.hist(column, bins=edges, weights=weights, color=colour, alpha=0.6)
    axes.set(ylabel="share of rows")


def _values(axes: Any, new: Any, old: Any) -> None:
    shares = [column.fillna("(missing)").value_counts(normalize=True) for column in (new, old)]
    shown = shares[0].add(shares[1], fill_value=0).nlargest(VALUES).index
    names = [str(value)[:20] for value in shown]
    for offset, share, colour in ((-0.2, shares[1], GREY), (0.2, shares[0], BLUE)):
        places = [place + offset for place in range(len(shown))]
        axes.bar(places, [share.get(value, 0) for value in shown], width=0.4, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
    axes.set(ylabel="share of rows")
