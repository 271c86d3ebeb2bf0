"""The monitor's result for people, as a page with plots and a summary, and for Prometheus."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from gitops.core import artifacts
from gitops.core.console import one_line
from gitops.core.figures import number
from gitops.core.sections import MONITOR_CHECKS
from gitops.rendering.html import BLUE, GREY, document
from gitops.rendering.markdown import code, details, plain, table

SIGNS = {
    "ok": "✅ OK",
    "drift": "⚠️ Drift",
    "too_small": "⏳ Too few rows",
    "invalid_requests": "🚫 Invalid requests",
}

#: The values of Prometheus' metric model_monitor_status.
STATUS_VALUES = {"ok": 0, "drift": 1, "too_small": 2, "invalid_requests": 3}

#: Columns that the page plots, at most, and categories in a plot, at most.
PLOTS, CATEGORIES = 20, 12

#: What to do first where a check has failed; docs/operate.md says more, under the same name.
ADVICE = {
    "performance": "Are the labels correct, and do all kinds of rows have them? Then `make rollback` if the previous "
    "release was better, or retrain.",
    "missing values": "Find the client: its requests share a time, and most likely other values.",
    "unseen categories": "Find the client. A new category that is to stay needs rows in the table.",
    "out of range": "Is it a unit, or a marker of missing values such as 999? If the values are real, retrain with "
    "them.",
    "feature drift": "Was something changed where the values come from: a unit, a sensor, a client, a campaign? Fix it "
    "there; if the world has changed, retrain with new rows.",
    "prediction drift": "Look at the features first. If none has failed, several have moved a little: retrain with new "
    "rows.",
    "label drift": "The distribution of the labels has changed: retrain with new rows.",
    "refused requests": "The client's requests do not fit the schema. The log's lines hold the errors. No retraining "
    "starts for them.",
    "unreadable lines": "The log is damaged, or something else writes to it. The monitor sees only a part of it. No "
    "retraining starts for them.",
}

Result = dict[str, Any]
Context = dict[str, Any]


def failures(result: Result) -> list[dict[str, Any]]:
    """Return the checks that failed, those furthest above their limit first."""
    failed = [check for check in result["checks"] if not check["passed"]]
    return sorted(failed, key=lambda check: -check["value"] / max(check["limit"], 1e-9))


def line(result: Result) -> str:
    """Return the result in one line of plain text."""
    failed: dict[str, list[str]] = {}
    for check in result["checks"]:
        if not check["passed"]:
            failed.setdefault(check["check"], []).extend([one_line(check["column"])] if check["column"] else [])
    found = [f"{name}: {_first(columns)}" if columns else name for name, columns in failed.items()]
    if result["performance"] and result["performance"]["passed"] is False:
        found.append(f"performance: {result['performance']['reason']}")
    rows = f"{result['rows']} rows of model {result['model_version']}, {result['refused']} requests refused"
    return f"{SIGNS[result['status']]}: {'; '.join(found) or 'no check failed'} ({rows})"


def markdown(result: Result, context: Context) -> str:
    """Return the result as Markdown: what failed and by how much, what to do, notes, and all checks, folded."""
    failed = failures(result)
    title = f"{SIGNS[result['status']]}: {plain(context['model'])} in production"
    parts = [f"## {title}", plain(_window(result, context), 500)]
    if performance := result["performance"]:
        sign = {True: "✅", False: "⚠️", None: "⏳"}[performance["passed"]]
        limit = ""
        if performance["passed"] is False:
            limit = f"; it may be worse by {number(performance['limit'], 3)} ({_setting('performance')})"
        parts.append(f"{sign} Performance: {plain(performance['reason'])}{limit}")
    if failed:
        parts += [_checks(failed), "A limit is that of its setting, or the critical value for so few rows if larger."]
    names = dict.fromkeys(check["check"] for check in failed)
    if performance and performance["passed"] is False:
        names = {"performance": None} | names
    if names:
        steps = "\n".join(f"- **{name}:** {ADVICE[name]}" for name in names)
        parts.append(f"What to do (more in `docs/operate.md`):\n\n{steps}")
    if result["notes"]:
        parts.append("Notes:\n\n" + "\n".join(f"- {plain(note)}" for note in result["notes"]))
    if result["checks"]:
        parts.append(details(f"All {len(result['checks'])} checks", _checks(result["checks"], 1000)))
    return "\n\n".join(parts) + "\n"


def page(summary: str, result: Result, context: Context) -> str:
    """Return the HTML page: the summary, and plots of the predictions and of each column that has failed a check."""
    legend = (
        "Plots: these requests are blue, the release's test rows grey. The outermost bars include all values beyond."
    )
    return document(f"{context['model']}: monitor", f"{summary}\n{legend}\n", plots(result, context))


def metrics(result: Result, context: Context, now: datetime) -> str:
    """Return the result in Prometheus' text format.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    failed: dict[str, float] = {}
    for check in result["checks"]:
        failed[check["check"]] = failed.get(check["check"], 0) + (not check["passed"])
    drifts = [check for check in result["checks"] if check["check"] == "feature drift"]
    performance = result["performance"] or {}
    families: list[tuple[str, str, list[tuple[dict[str, str], float | None]]]] = [
        (
            "status",
            "0 OK, 1 drift, 2 too few rows to evaluate, 3 invalid requests",
            [({}, STATUS_VALUES[result["status"]])],
        ),
        ("last_run_timestamp_seconds", "When the monitor ran.", [({}, round(now.timestamp()))]),
        ("rows", "Rows since the last evaluated run.", [({}, result["rows"])]),
        ("refused_requests", "Requests refused since the last evaluated run.", [({}, result["refused"])]),
        ("failed_checks", "Checks that failed.", [({"check": name}, count) for name, count in failed.items()]),
        ("drift", "Drift of a feature, 0 to 1.", [({"column": item["column"]}, item["value"]) for item in drifts]),
        (
            "performance",
            "The primary metric on labelled rows.",
            [({"metric": performance.get("metric", "")}, performance.get("value"))],
        ),
    ]
    lines = []
    for name, help_text, samples in families:
        if known := [(labels, value) for labels, value in samples if value is not None]:
            lines += [f"# HELP model_monitor_{name} {help_text}", f"# TYPE model_monitor_{name} gauge"]
            about = {"model": context["model"], "version": context["model_version"]}
            lines += [f"model_monitor_{name}{{{_labels(about | labels)}}} {value!r}" for labels, value in known]
    return "\n".join(lines) + "\n"


def _labels(values: dict[str, str]) -> str:
    escaped = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return ",".join(f'{name}="{value.translate(escaped)}"' for name, value in values.items())


def _first(columns: list[str], most: int = 5) -> str:
    return ", ".join(columns[:most]) + (f" and {len(columns) - most} more" if len(columns) > most else "")


def _window(result: Result, context: Context) -> str:
    first, last = (time and time[:16].replace("T", " ") for time in (result["from"], result["to"]))
    times = f"From {first} to {last} UTC" if first else "No request"
    left_out = {"unreadable lines": sum(context["unreadable"].values())}
    left_out |= {"lines of other models": context["other_versions"], "lines too old": context["too_old"]}
    more = "".join(f", {count} {what}" for what, count in left_out.items() if count)
    return (
        f"{times}: {result['rows']} rows of model {result['model_version']} (release {result['release'][:12]}), "
        f"{result['refused']} of {context['requests']} requests refused, {context['labelled']} rows with labels{more}."
    )


def _checks(checks: list[dict[str, Any]], limit: int = 40) -> str:
    rows = [
        [
            "✅" if check["passed"] else "⚠️",
            check["check"],
            code(check["column"], 60) if check["column"] else "",
            *(f"{check[key]:.3g}" if "drift" in check["check"] else f"{check[key]:.1%}" for key in ("value", "limit")),
            _setting(check["check"]),
            plain(check["details"]),
        ]
        for check in checks
    ]
    return table(["", "check", "column", "value", "limit", "setting", "details"], rows, limit)


def _setting(check: str) -> str:
    """Return the setting of params.yaml that holds the limit of a check."""
    return code(f"monitor.{MONITOR_CHECKS[check]}")


def plots(result: Result, context: Context) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot: the predictions, and each column that has failed a check."""
    outputs, reference_outputs = (
        artifacts.read_parquet(path)
        for path in (artifacts.MONITOR_CURRENT_OUTPUTS, artifacts.MONITOR_REFERENCE_OUTPUTS)
    )
    if outputs.empty:
        return []
    classes = context["schema"]["target"]["classes"]
    binary = len(classes) == 2
    column = f"p_{classes[-1]}" if binary else "prediction"
    draw = _categories if classes and not binary else _histogram
    title = f"Probability of {classes[-1]}" if binary else "Predictions"
    drawn: list[tuple[str, Any]] = [(title, partial(draw, new=outputs[column], old=reference_outputs[column]))]
    current, reference = (
        artifacts.read_parquet(path) for path in (artifacts.MONITOR_CURRENT, artifacts.MONITOR_REFERENCE)
    )
    dtypes = {feature["name"]: feature["dtype"] for feature in context["schema"]["features"]}
    by_dtype = {"number": _histogram, "datetime": _dates}
    # The log has no values of a refused request.
    drifted = [check["column"] for check in failures(result) if check["check"] != "refused requests"]
    for name in [*dict.fromkeys(name for name in drifted if name in dtypes)][:PLOTS]:
        draw = by_dtype.get(dtypes[name], _categories)
        drawn.append((name, partial(draw, new=current[name], old=reference[name])))
    return drawn


def _histogram(axes: Any, new: Any, old: Any) -> None:
    import numpy as np

    if new.isna().any() or old.isna().any():
        axes.set_xlabel(f"missing: {new.isna().mean():.1%} of the requests, {old.isna().mean():.1%} of the test rows")
    new, old = new.dropna(), old.dropna()
    both = np.concatenate([new, old])
    # A single outlier would squeeze all other values into one bar.
    low, high = np.quantile(both, [0.005, 0.995]) if len(both) else (0, 1)
    edges = np.histogram_bin_edges(both.clip(low, high), bins=30)
    for column, colour in ((old, GREY), (new, BLUE)):
        weights = np.full(len(column), 1 / max(1, len(column)))
        axes.hist(column.clip(low, high), bins=edges, weights=weights, color=colour, alpha=0.6)
    axes.set(ylabel="fraction of rows")


def _dates(axes: Any, new: Any, old: Any) -> None:
    """Draw seconds since 1970 as dates, which matplotlib counts in days."""
    _histogram(axes, new / 86400, old / 86400)
    axes.xaxis_date()
    axes.tick_params(axis="x", rotation=30)


def _categories(axes: Any, new: Any, old: Any) -> None:
    now, before = (column.fillna("(missing)").value_counts(normalize=True) for column in (new, old))
    shown = now.add(before, fill_value=0).nlargest(CATEGORIES).index
    for offset, fractions, colour in ((-0.2, before, GREY), (0.2, now, BLUE)):
        positions = [index + offset for index in range(len(shown))]
        axes.bar(positions, [fractions.get(value, 0) for value in shown], width=0.4, color=colour)
    names = [str(value)[:20] for value in shown]
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
    axes.set(ylabel="fraction of rows")
