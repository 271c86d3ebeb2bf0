"""Train a candidate on the newest data, evaluate it and propose it: the part of `make retrain` after retrain.py.

It runs in a working tree of its own at the newest commit of main. Every step can be repeated: until the pull request is
open, origin holds nothing that a second run does not find or replace, and DVC's caches keep what was trained. A refused
candidate opens no pull request and is reported.
"""

from __future__ import annotations

import os
import sys
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
from gitops.core.console import annotate, echo, relay
from gitops.core.params import Params
from gitops.gate import gate
from gitops.integrations import dvc, git
from gitops.integrations.github import GitHub
from gitops.releases import trained
from gitops.rendering.markdown import defang, plain
from gitops.reporting import context, report, sections
from gitops.retraining import ingest, pipeline, pull_request, trigger

#: How a retraining can end, and the line that says so.
OUTCOMES = {
    "opened": "Opened",
    "refused": "Nothing opened",
    "nothing": "No retraining",
    "waits": "No retraining yet",
}


def main() -> int:
    """Retrain, or say why not; exit status 1 where something failed."""
    return retrain(params.load(), trigger.reason(os.environ.get("REASON", "")), forced=os.environ.get("FORCE") == "1")


def retrain(settings: Params, reason: str, *, forced: bool) -> int:
    """Run every step and return the exit status. Raises ProjectError."""
    main_commit, client = git.run("rev-parse", "HEAD"), pull_request.client()
    drift = trigger.monitor_result()
    if drift and drift["status"] != "drift":
        return finish("nothing", f"the monitor's status is {plain(drift['status'])}")
    unmerged = pull_request.unmerged(client, main_commit)
    pull_request.record_newest(unmerged)
    if not forced and (why := trigger.blocked(settings, unmerged, pull_request.last())):
        return finish("waits", why)
    record: dict[str, Any] = {
        "reason": reason,
        "commit": main_commit,
        "run": _run_address(),
        "monitor": drift,
        "tuned": "",
    }
    record["data"] = ingest.update_tables(settings)
    if settings.retrain.tune_trials:
        record["tuned"] = tune(settings)
        settings = params.load()
    pointers = [Path(f"{path}.dvc") for path in settings.tables]
    paths = [path for path in (*pointers, APPENDED, PARAMS) if path.exists()]
    if not git.run("status", "--porcelain", "--", *map(str, paths)):
        left_out = "".join(f"; {count} left out: {why}" for why, count in record["data"]["left_out"].items())
        return finish("nothing", f"no new data or settings since main: nothing to train{left_out}")
    artifacts.write_json(RETRAIN, record)
    accepted, summary = train_and_evaluate(settings)
    title = f"Retrain: {reason}"
    review = record["data"].get("review", "")
    told = f"Before you merge, look at the rows: {review}." if review else ""
    paragraphs = [title, trigger.one_line(summary, 1000), told, f"Retrain-reason: {reason}\n"]
    message = "\n\n".join(filter(None, paragraphs))
    if not accepted:
        pull_request.record(pull_request.refusal(main_commit, f"{message}Retrain-result: refused\n"))
        return finish("refused", summary)
    return propose(client, main_commit, [*paths, dvc.LOCK], title, message, review)


def tune(settings: Params) -> str:
    """Search for better settings on the new data, write them to params.yaml and return the summary.

    Raises ProjectError.
    """
    status = pipeline.run([str(pipeline.DVC), "repro", "--pull", "prepare"])
    command = [sys.executable, "-m", "gitops.tuning.tune", "--trials", str(settings.retrain.tune_trials)]
    if status or relay(command):
        raise ProjectError("the search for better settings has failed: see above")
    return str(read_json(TUNE, "make tune")["verdict"])


def train_and_evaluate(settings: Params) -> tuple[bool, str]:
    """Train, validate and gate; return whether the candidate is accepted, and why. Writes the report in either case.

    Raises ProjectError where a stage failed for another reason than a failed check.
    """
    for path in (DATA_VERDICT, MODEL_VERDICT, GATE):
        path.unlink(missing_ok=True)
    status = pipeline.main()
    result = gate.evaluate(settings) if status == 0 else None
    report.main()
    if result:
        return result["accepted"] is True, str(result["reason"])
    for path in (DATA_VERDICT, MODEL_VERDICT):
        if path.exists() and read_json(path, "make pipeline")["passed"] is not True:
            return False, f"Refused: {path.stem} failed."
    raise ProjectError("the pipeline has failed, and not by a check: see above")


def propose(client: GitHub | None, main_commit: str, paths: list[Path], title: str, message: str, review: str) -> int:
    """Push data and results, then the branch; open its pull request, or say how to merge it. Raises ProjectError.

    `review` says why a person must look at the rows before, or is empty.
    """
    trained.push()
    settings = params.load()
    objects = (dvc.tracked_object(artifacts.tracked_md5(path)) for path in settings.tables)
    paths = [*paths, *(path for path in objects if path)]  # a clone could not get the tables from anywhere else
    branch = pull_request.PREFIX + artifacts.digest(artifacts.MODEL)[:12]
    commit = pull_request.push(pull_request.commit(main_commit, paths, message), branch)
    if client:
        detail = pull_request.open_or_edit(client, branch, title, body(settings), review=bool(review))
    else:
        merge = f"`git fetch && git merge {git.REMOTE}/{branch}` and a push of main release it"
        detail = f"{branch} on {git.REMOTE}; {merge}"
    if review:
        detail += f"; look at the rows in reports/retrain/report.md before you merge: {review}"
    pull_request.record(commit)
    return finish("opened", detail, branch)


def body(settings: Params) -> str:
    """Return the text of the pull request: the head of the report. CI comments with the whole report."""
    return sections.join(context.gather(settings, dvc.stale()), sections.SUMMARY)


def finish(status: str, detail: str, branch: str = "") -> int:
    """Report the outcome on the console, on the run's page and to later steps of the workflow."""
    line = f"{OUTCOMES[status]}: {detail}"
    echo(line)
    if status in ("refused", "nothing"):
        annotate("warning", "Retraining", detail)
    actions.summarise(defang(line))
    actions.output({"status": status, "branch": branch})
    return 0


def _run_address() -> str | None:
    server, repository, number = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{number}" if server and repository and number else None


if __name__ == "__main__":
    run(main)
