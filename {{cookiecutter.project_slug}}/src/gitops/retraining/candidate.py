"""Train a candidate on the newest data and evaluate it: the part of `make retrain` after retrain.py.

It runs in a working tree of its own at the newest commit of main, and ends with a candidate that is proposed
(propose.py), in a workflow by another job. Every step can be repeated: until the pull request is open, origin holds
nothing that a second run does not find or replace, and DVC's caches keep what was trained. A refused candidate opens no
pull request and is reported.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gitops.core import artifacts, params
from gitops.core.artifacts import (
    APPENDED,
    DATA_UNDERSTANDING,
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
from gitops.core.console import relay
from gitops.core.params import Params
from gitops.design import documents
from gitops.gate import gate
from gitops.integrations import dvc, dvc_stages, git
from gitops.integrations.github import GitHub
from gitops.releases import trained
from gitops.rendering.markdown import plain
from gitops.reporting import context, report, sections
from gitops.retraining import handover, ingest, pipeline, proposals, propose, trigger
from gitops.retraining.handover import Candidate
from gitops.retraining.propose import finish
from gitops.tabular import parts


def main() -> int:
    """Retrain, or say why not; exit status 1 where something failed."""
    return retrain(params.load(), trigger.reason(os.environ.get("REASON", "")), forced=os.environ.get("FORCE") == "1")


def retrain(settings: Params, reason: str, *, forced: bool) -> int:
    """Run every step and return the exit status. Raises ProjectError."""
    main_commit, client = git.run("rev-parse", "HEAD"), proposals.client()
    drift = trigger.monitor_result()
    if drift and drift["status"] != "drift":
        return finish("nothing", f"the monitor's status is {plain(drift['status'])}")
    unmerged, last = proposals.unmerged(client, main_commit), proposals.last(client)
    if not forced and (why := trigger.blocked(settings, unmerged, last)):
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
    pointers = [Path(f"{path}.dvc") for path in (*settings.tables, parts.FOLDER)]
    paths = [path for path in (*pointers, APPENDED, PARAMS) if path.exists()]
    if not git.run("status", "--porcelain", "--", *map(str, paths)):
        left_out = "".join(f"; {count} left out: {why}" for why, count in record["data"]["left_out"].items())
        return finish("nothing", f"no new data or settings since main: nothing to train{left_out}")
    artifacts.write_json(RETRAIN, record)
    return finish_candidate(settings, client, record, paths)


def finish_candidate(settings: Params, client: GitHub | None, record: dict[str, Any], paths: list[Path]) -> int:
    """Train and evaluate what is new in `paths`, hand the result over and return the exit status."""
    accepted, summary = train_and_evaluate(settings)
    title, review = f"Retrain: {record['reason']}", record["data"].get("review", "")
    told = f"Before you merge, look at the rows: {review}." if review else ""
    paragraphs = [title, trigger.one_line(summary, 1000), told, f"Retrain-reason: {record['reason']}\n"]
    message = "\n\n".join(filter(None, paragraphs))
    if not accepted:
        hand_over(client, Candidate(record["commit"], f"{message}Retrain-result: refused\n"))
        return finish("refused", summary)
    trained.push()
    settings = params.load()
    described = [path for path in (DATA_UNDERSTANDING,) if path.as_posix() in git.changes()]
    files = [*paths, dvc.LOCK, *new_objects(paths), *described]
    branch = handover.PREFIX + artifacts.digest(artifacts.MODEL)[:12]
    hand_over(client, Candidate(record["commit"], message, branch, title, body(settings), review), files)
    return 0


def new_objects(paths: Sequence[Path]) -> list[Path]:
    """Return the DVC objects of the data that pointers among `paths` name, as far as the commit has to add them.

    None, unless the remote is a folder of the repository: then a clone has the data from nowhere else.
    """
    md5s = []
    for path in (pointer.with_suffix("") for pointer in paths if pointer.suffix == ".dvc"):
        md5s.append(md5 := artifacts.tracked_md5(path))
        if md5.endswith(dvc_stages.FOLDER):
            md5s += dvc_stages.listed(path.as_posix(), dvc.cached(md5)).values()
    return [path for path in dvc.tracked_objects(md5s) if not git.exists(f"HEAD:{path.as_posix()}")]


def hand_over(client: GitHub | None, candidate: Candidate, files: Sequence[Path] = ()) -> None:
    """Leave a candidate for `make propose`, which another job runs in a workflow; elsewhere propose it now."""
    handover.leave(candidate, files)
    if handover.in_workflow():
        if candidate.branch:
            finish("ready", f"{handover.FOLDER}/ for `make propose`, {candidate.branch}", candidate.branch)
    else:
        propose.propose(handover.read(), client)
        shutil.rmtree(handover.FOLDER)


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
    if result:
        documents.describe(settings)
    report.main()
    if result:
        return result["accepted"] is True, str(result["reason"])
    for path in (DATA_VERDICT, MODEL_VERDICT):
        if path.exists() and read_json(path, "make pipeline")["passed"] is not True:
            return False, f"Refused: {path.stem} failed."
    raise ProjectError("the pipeline has failed, and not by a check: see above")


def body(settings: Params) -> str:
    """Return the text of the pull request: the head of the report. CI comments with the whole report."""
    return sections.join(context.gather(settings, dvc.stale()), sections.SUMMARY)


def _run_address() -> str | None:
    server, repository, number = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{number}" if server and repository and number else None


if __name__ == "__main__":
    run(main)
