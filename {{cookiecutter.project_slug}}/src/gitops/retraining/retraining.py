"""What `make retrain` does in a working tree of its own at the newest commit of main (retrain.py makes it).

Steps that repeat without harm: before a pull request is open, origin holds nothing that a rerun does not find or
replace; DVC's caches keep what was trained. A candidate that is refused opens nothing, and is reported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import (
    APPENDED,
    DATA_VERDICT,
    GATE,
    MODEL_VERDICT,
    PARAMS,
    RETRAIN,
    TUNE,
    ProjectError,
    read_json,
    run,
)
from gitops.core.params import Params
from gitops.gate import gate
from gitops.integrations import dvc, git
from gitops.rendering.markdown import defang, plain
from gitops.reporting import context, report, sections
from gitops.retraining import ingest, pipeline, pull_request

LOCK = Path("dvc.lock")

#: How it can end, and what is said then.
ENDS = {
    "opened": "Opened",
    "refused": "Nothing opened",
    "nothing": "No retraining",
    "waits": "No retraining yet",
}

#: Characters of a reason, which anybody may have written who can start this.
REASON = 200

#: Checks of the monitor that the report shows.
CHECKS = 100


def main() -> int:
    """Retrain, or say why not; exit status 1 where something broke."""
    return retrain(params.load(), reason(os.environ.get("REASON", "")), forced=os.environ.get("FORCE") == "1")


def reason(text: str) -> str:
    """Return why this was started: one line, without effect anywhere. Raises ProjectError where nothing is said."""
    said = one_line(text, REASON)
    if not said:
        raise ProjectError('REASON is not set: say why, as in `make retrain REASON="labels of the spring"`')
    return said


def one_line(text: str, limit: int) -> str:
    """Return text for a commit's message or a title: shortened, and without effect on GitHub."""
    return defang(" ".join(text.split()))[:limit].strip()


def retrain(settings: Params, why: str, *, forced: bool) -> int:
    """Take every step; return the exit status. Raises ProjectError."""
    main_commit, hub = git.run("rev-parse", "HEAD"), pull_request.hub()
    verdict = monitor()
    if verdict and verdict["status"] != "drift":
        return ended("nothing", f"the monitor says {plain(verdict['status'])}")
    unmerged = pull_request.unmerged(hub, main_commit)
    pull_request.catch_up(unmerged)
    if not forced and (wait := waits(settings, unmerged, pull_request.last())):
        return ended("waits", wait)
    facts: dict[str, Any] = {
        "reason": why,
        "commit": main_commit,
        "run": _run_address(),
        "monitor": verdict,
        "tuned": "",
    }
    facts["data"] = ingest.take(settings)
    if settings.retrain.tune_trials:
        facts["tuned"] = tune(settings)
        settings = params.load()
    pointers = [Path(f"{path}.dvc") for path in settings.tables]
    paths = [path for path in (*pointers, APPENDED, PARAMS) if path.exists()]
    if not git.run("status", "--porcelain", "--", *map(str, paths)):
        left_out = "".join(f"; {count} left out: {why_not}" for why_not, count in facts["data"]["left_out"].items())
        told = f"nothing to learn from that main does not hold: the same inputs give the same model{left_out}"
        return ended("nothing", told)
    artifacts.write_json(RETRAIN, facts)
    accepted, words = judged(settings)
    title = f"Retrain: {why}"
    message = f"{title}\n\n{one_line(words, 1000)}\n\nRetrain-reason: {why}\n"
    if not accepted:
        pull_request.record(pull_request.refusal(main_commit, f"{message}Retrain-result: refused\n"))
        return ended("refused", words)
    return propose(hub, main_commit, [*paths, LOCK], title, message)


def waits(settings: Params, unmerged: list[str], last: datetime | None) -> str | None:
    """Return why this is not the time to retrain, or None."""
    if unmerged:
        return f"{', '.join(unmerged)} is open: merge or close it first, or FORCE=1"
    free = last + timedelta(hours=settings.retrain.cooldown_hours) if last else None
    if last and free and datetime.now(UTC) < free:
        hours = f"{settings.retrain.cooldown_hours:g}"
        return (
            f"the last one was at {last:%Y-%m-%d %H:%M} UTC, less than retrain.cooldown_hours ({hours}) ago; or FORCE=1"
        )
    return None


def monitor() -> dict[str, Any] | None:
    """Return the monitor's verdict that started this (MONITOR, JSON), or None. Raises ProjectError for another text."""
    text = os.environ.get("MONITOR", "").strip()
    if text in ("", "null"):
        return None
    try:
        told = json.loads(text)
        checks = [
            {key: check.get(key) for key in ("check", "column", "value", "limit", "passed")} for check in told["checks"]
        ]
        return {key: told.get(key) for key in ("status", "from", "to", "rows")} | {"checks": checks[:CHECKS]}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ProjectError("MONITOR is not the JSON of reports/monitor.json") from None


def tune(settings: Params) -> str:
    """Search for better settings on the new data, for params.yaml, and return the verdict. Raises ProjectError."""
    prepared = pipeline.run([str(pipeline.DVC), "repro", "--pull", "prepare"])
    command = [sys.executable, "-m", f"{__package__}.tune", "--trials", str(settings.retrain.tune_trials)]
    if prepared or subprocess.run(command, check=False).returncode:
        raise ProjectError("the search for better settings has failed: see above")
    return str(read_json(TUNE, "make tune")["verdict"])


def judged(settings: Params) -> tuple[bool, str]:
    """Train, validate and judge; return whether the candidate is accepted, and the verdict. The report tells of both.

    Raises ProjectError where a stage broke, other than by a check that failed.
    """
    for path in (DATA_VERDICT, MODEL_VERDICT, GATE):
        path.unlink(missing_ok=True)
    status = pipeline.main()
    verdict = gate.evaluate(settings) if status == 0 else None
    report.main()
    if verdict:
        return verdict["accepted"] is True, str(verdict["reason"])
    for path in (DATA_VERDICT, MODEL_VERDICT):
        if path.exists() and read_json(path, "make pipeline")["passed"] is not True:
            return False, f"Refused: {path.stem} failed."
    raise ProjectError("the pipeline has failed, and not by a check: see above")


def propose(hub: Any, main_commit: str, paths: list[Path], title: str, message: str) -> int:
    """Push data and results, then the branch; open its pull request, or say how to merge it."""
    dvc.push()
    settings = params.load()
    kept = (dvc.tracked_object(artifacts.tracked_md5(path)) for path in settings.tables)
    paths = [*paths, *(path for path in kept if path)]  # a clone has no other place to get the tables from
    branch = pull_request.PREFIX + artifacts.digest(artifacts.MODEL)[:12]
    commit = pull_request.push(pull_request.commit(main_commit, paths, message), branch)
    if hub:
        told = pull_request.show(hub, branch, title, body(settings))
    else:
        told = f"{branch} on {git.REMOTE}; `git fetch && git merge {git.REMOTE}/{branch}` and a push of main release it"
    pull_request.record(commit)
    return ended("opened", told, branch)


def body(settings: Params) -> str:
    """Return the pull request's text: the head of the report. CI's comment will show the whole."""
    return sections.join(context.gather(settings, dvc.stale()), sections.SUMMARY)


def ended(status: str, told: str, branch: str = "") -> int:
    """Tell how it has ended: here, on the run's page and to later steps of the workflow."""
    line = f"{ENDS[status]}: {told}"
    print(line)
    if os.environ.get("GITHUB_ACTIONS") and status in ("refused", "nothing"):
        print(f"::warning title=Retraining::{' '.join(plain(told, 500).split())}")
    actions.summarise(defang(line))
    actions.output({"status": status, "branch": branch})
    return 0


def _run_address() -> str | None:
    server, repository, number = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{number}" if server and repository and number else None


if __name__ == "__main__":
    run(main)
