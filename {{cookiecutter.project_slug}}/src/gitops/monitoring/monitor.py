"""Detect drift between production traffic and the test rows of the release (`make monitor`).

Exit status: 3 drift, 1 the monitor failed, else 0. `make` turns every failure into the same exit status, so `make
monitor` succeeds on drift too, and a workflow reads the step's output `status`.

Drift starts a retraining. Refused requests and unreadable lines never do, since whoever may send a request makes those:
`invalid_requests` is a status of its own, about which people are told.

The metrics for Prometheus are written beside the log as well: a run of GitHub's ends long before it could be scraped,
and serving/server/drift_metrics.py serves them on the cluster.

How far the log was evaluated is stored last, when all else is written: a monitor that is killed and started again
evaluates the same requests again. A window with too few rows is not stored, and grows until the next run.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import MONITOR, MONITOR_CHECKS, MONITOR_HTML, MONITOR_METRICS, ProjectError, run
from gitops.core.console import annotate, echo, relay
from gitops.core.params import Params
from gitops.monitoring import performance, report, request_ids, request_log, windows, worth
from gitops.monitoring.request_log import Evaluated
from gitops.monitoring.windows import Context

PYTHON = Path(".venv/validate/bin/python")

DRIFT = 3


def main() -> int:
    """Evaluate the requests since the last evaluated run, write reports/monitor.* and return the exit status."""
    for path in (MONITOR, MONITOR_HTML, MONITOR_METRICS):
        path.unlink(missing_ok=True)  # a monitor that fails must not leave an old result behind
    settings, now = params.load(), datetime.now(UTC)
    context = windows.collect(settings, now)
    result = evaluate(settings, context)
    summary = report.markdown(result, context)
    text = report.metrics(result, context, now)
    artifacts.write_text(MONITOR_HTML, report.page(summary, result, context))
    artifacts.write_text(MONITOR_METRICS, text)
    artifacts.write_json(MONITOR, {"time": now.isoformat(timespec="seconds"), **result})
    request_log.write(request_log.METRICS, text)
    echo(f"{report.line(result)}\nAll checks: {MONITOR}, with plots: {MONITOR_HTML}")
    if result["status"] == "invalid_requests":
        annotate("warning", "Monitor", report.line(result))
    actions.summarise(summary)
    actions.output({"status": result["status"]})
    if result["rows"] >= settings.monitor.min_rows:
        request_log.save(Evaluated(context["offsets"], context["tables"]), now)
    return DRIFT if result["status"] == "drift" else 0


def evaluate(settings: Params, context: Context) -> dict[str, Any]:
    """Return the result for the tables in monitoring/, the contents of reports/monitor.json."""
    limits = settings.monitor
    checks, notes, drifted = log_checks(settings, context), [], False
    invalid = _failed(checks)
    if enough := context["rows"] >= limits.min_rows:
        run_drift_checks()
        found = artifacts.read_json(MONITOR_CHECKS, "make monitor")
        drifted = _failed(found["checks"])
        checks += found["checks"]
        notes += found["notes"]
    else:
        notes.append(f"{context['rows']} rows, and monitor.min_rows is {limits.min_rows}: kept for the next run")
    notes += [f"{feature} is redacted in the log: not checked" for feature in context["redacted"]]
    notes += [f"not checked, because of monitor.skip: {name}" for name in limits.skip]
    if context["reused"]:
        notes.append(f"labelled requests left out of the performance: {context['reused']}, {request_ids.REUSED}")
    measured = None if "performance" in limits.skip else performance.evaluate(settings, context)
    if measured and measured["passed"] is None:
        notes.append(f"performance not evaluated: {measured['reason']}")
    drifted = drifted or bool(measured and measured["passed"] is False)
    otherwise = "ok" if enough else "too_small"
    value = worth.evaluate(settings, context)
    return {
        "status": "drift" if drifted else "invalid_requests" if invalid else otherwise,
        "from": context["from"],
        "to": context["to"],
        "rows": context["rows"],
        "refused": context["refused"],
        "model_version": context["model_version"],
        "release": context["release"],
        "checks": checks,
        "performance": measured,
        **({"value": value} if value else {}),
        "notes": notes,
    }


def _failed(checks: list[dict[str, Any]]) -> bool:
    return any(not check["passed"] for check in checks)


def log_checks(settings: Params, context: Context) -> list[dict[str, Any]]:
    """Return the checks of the log itself, refused requests and unreadable lines.

    Each is left out where the log has fewer than `monitor.min_rows` requests, or lines.
    """
    limits = settings.monitor
    unreadable = sum(context["unreadable"].values())
    columns = [f"{column or 'the request as a whole'} ({count})" for column, count in context["refused_for"][:10]]
    reasons = [f"{reason} ({count})" for reason, count in [*context["unreadable"].items()][:10]]
    # A client that leaves a column out is refused: the column that is named most often is the one to look at.
    suspect = context["refused_for"][0][0] if context["refused_for"] else None
    checks = []
    for name, column, value, total, details in (
        ("refused requests", suspect, context["refused"], context["requests"], columns),
        ("unreadable lines", None, unreadable, context["lines"], reasons),
    ):
        if name not in limits.skip and total >= limits.min_rows:
            fraction, counts = round(value / total, 4), f"{value} of {total}"
            checks.append(
                {
                    "check": name,
                    "column": column,
                    "value": fraction,
                    "limit": limits.max_refused,
                    "passed": fraction <= limits.max_refused,
                    "details": f"{counts}: {', '.join(details)}" if details else counts,
                }
            )
    return checks


def run_drift_checks() -> None:
    """Run drift.py in the environment that has Deepchecks. Raises ProjectError where it fails."""
    if not PYTHON.exists():
        raise ProjectError(f"{PYTHON} is missing: run `make setup` first")
    MONITOR_CHECKS.unlink(missing_ok=True)
    if relay([PYTHON, "-m", "gitops.monitoring.drift"]):
        raise ProjectError("drift checks failed (see the output above): this window was not evaluated")


if __name__ == "__main__":
    run(main)
