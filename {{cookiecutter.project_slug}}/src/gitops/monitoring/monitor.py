"""Is what production is asked, and what it answers, still what the release was tested on (`make monitor`)?

Exit status: 0 nothing to say or too few rows to judge, 3 drift, 1 the monitor failed. `make` makes one number of all
failures, so `make monitor` ends well on drift too, and a workflow reads the step's output `status`.

What was judged is remembered last, when all else is written and sent: killed anywhere and started again, the monitor
judges the same requests again. A window too small to judge is not remembered and grows into the next one.
"""

from __future__ import annotations

import os
import subprocess
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import MONITOR, MONITOR_CHECKS, MONITOR_HTML, MONITOR_METRICS, ProjectError, run
from gitops.core.params import Params
from gitops.monitoring import monitor_log, monitor_performance, monitor_report, monitor_window

PYTHON = Path(".venv/validate/bin/python")

DRIFT = 3

#: Seconds that the Pushgateway may take.
TIMEOUT = 30


def main() -> int:
    """Judge the requests since the last judged run; write reports/monitor.*; return the exit status."""
    for path in (MONITOR, MONITOR_HTML, MONITOR_METRICS):
        path.unlink(missing_ok=True)  # a monitor that fails leaves no old verdict behind
    settings, now = params.load(), datetime.now(UTC)
    facts = monitor_window.collect(settings, now)
    verdict = judge(settings, facts)
    summary = monitor_report.markdown(verdict, facts)
    text = monitor_report.metrics(verdict, facts, now)
    artifacts.write_text(MONITOR_HTML, monitor_report.page(summary, verdict, facts))
    artifacts.write_text(MONITOR_METRICS, text)
    artifacts.write_json(MONITOR, verdict)
    push(text, facts["model"])
    line = monitor_report.line(verdict)
    print(f"{line}\nAll checks: {MONITOR}, with plots: {MONITOR_HTML}")
    actions.summarise(summary)
    actions.output({"status": verdict["status"]})
    if verdict["status"] != "too_small":
        monitor_log.save(facts["ends"], now)
    return DRIFT if verdict["status"] == "drift" else 0


def judge(settings: Params, facts: monitor_window.Facts) -> dict[str, Any]:
    """Return the verdict on the tables in monitoring/, as reports/monitor.json holds it."""
    limits = settings.monitor
    checks, notes = requests(settings, facts), []
    if enough := facts["rows"] >= limits.min_rows:
        deepchecks()
        found = artifacts.read_json(MONITOR_CHECKS, "make monitor")
        checks += found["checks"]
        notes += found["notes"]
    else:
        notes.append(f"{facts['rows']} rows, and monitor.min_rows is {limits.min_rows}: they wait for more")
    notes += [f"{column} is masked in the log: not judged" for column in facts["masked"]]
    notes += [f"not judged, as monitor.skip says: {name}" for name in limits.skip]
    performance = None if "performance" in limits.skip else monitor_performance.measure(settings, facts)
    if performance and performance["passed"] is None:
        notes.append(f"performance not judged: {performance['reason']}")
    failed = [check for check in checks if not check["passed"]] or (performance and performance["passed"] is False)
    return {
        "status": "drift" if failed else "quiet" if enough else "too_small",
        "from": facts["from"],
        "to": facts["to"],
        "rows": facts["rows"],
        "refused": facts["refused"],
        "model_version": facts["model_version"],
        "release": facts["release"],
        "checks": checks,
        "performance": performance,
        "notes": notes,
    }


def requests(settings: Params, facts: monitor_window.Facts) -> list[dict[str, Any]]:
    """Return the checks of the log itself, where it has `monitor.min_rows` requests or lines: what was refused, and
    what could not be read.
    """
    limits = settings.monitor
    broken = sum(facts["broken"].values())
    columns = [f"{column or 'the request as a whole'} ({count})" for column, count in facts["refused_for"][:10]]
    lines = [f"{reason} ({count})" for reason, count in [*facts["broken"].items()][:10]]
    found = []
    for name, value, total, details in (
        ("refused requests", facts["refused"], facts["requests"], columns),
        ("unreadable lines", broken, facts["lines"], lines),
    ):
        if name not in limits.skip and total >= limits.min_rows:
            share, text = round(value / total, 4), f"{value} of {total}"
            said = {"details": f"{text}: {', '.join(details)}" if details else text}
            # A client that leaves a column out is refused: the column that is named most often is the one to look at.
            column = facts["refused_for"][0][0] if name == "refused requests" and facts["refused_for"] else None
            passed = share <= limits.max_refused
            found.append(
                {"check": name, "column": column, "value": share, "limit": limits.max_refused, "passed": passed} | said
            )
    return found


def deepchecks() -> None:
    """Run monitor_checks in the environment that has Deepchecks. Raises ProjectError where it fails."""
    if not PYTHON.exists():
        raise ProjectError(f"{PYTHON} is missing: run `make setup` first")
    MONITOR_CHECKS.unlink(missing_ok=True)
    done = subprocess.run([PYTHON, "-m", "gitops.monitoring.monitor_checks"], check=False)
    if done.returncode:
        raise ProjectError("the checks did not run through, so nothing is judged; why is said above")


def push(text: str, model: str) -> None:
    """Hand the metrics to the Prometheus Pushgateway at PUSHGATEWAY, if that is set. Raises ProjectError.

    Source: https://github.com/prometheus/pushgateway#put-method
    """
    address = os.environ.get("PUSHGATEWAY")
    if not address:
        return
    url = f"{address.rstrip('/')}/metrics/job/monitor/model/{model}"
    try:
        request = urllib.request.Request(url, text.encode(), {"Content-Type": "text/plain"}, method="PUT")
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        raise ProjectError(f"PUSHGATEWAY is {address!r}, which did not take the metrics: {error}") from error


if __name__ == "__main__":
    run(main)
