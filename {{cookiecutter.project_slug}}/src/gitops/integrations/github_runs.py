"""Runs of the workflow CI: the newest one of a commit, their jobs, and a start by hand.

https://docs.github.com/en/rest/actions/workflow-runs and .../workflows. A push with a workflow's own token starts
nothing, and the same token may start a workflow on a branch.
"""

from __future__ import annotations

import time
from typing import Any

from gitops.integrations import github
from gitops.integrations.github import GitHub

CI = "ci.yaml"

#: What starts a run of CI for a branch of this repository; GitHub starts it for a fork's pull request.
EVENTS = ("push", "workflow_dispatch")

#: Conclusions of runs that say nothing of their commit.
NOT_RUN = ("action_required", "cancelled", "skipped", "stale", "startup_failure")

#: Part of GitHub's answer where it has not seen a new branch yet.
NO_REF = "No ref found"


def newest(repository: GitHub, branch: str, commit: str) -> dict[str, Any] | None:
    """Return the newest run of CI of a branch of this repository for its commit; None where there is none."""
    runs = repository.every(f"actions/workflows/{CI}/runs", "workflow_runs", head_sha=commit, branch=branch)
    own = [
        run
        for run in runs
        if run["event"] in EVENTS and (run["head_repository"] or {}).get("full_name") == repository.repository
    ]
    return max(own, key=lambda run: int(run["id"]), default=None)


def jobs(repository: GitHub, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the jobs of a run's newest attempt, with their steps."""
    return repository.every(f"actions/runs/{int(run['id'])}/jobs", "jobs")


def start(repository: GitHub, branch: str, commit: str) -> None:
    """Start CI on a branch, unless it runs or has run for its newest commit. Raises GitHubError where it cannot."""
    for attempt in range(github.TRIES):
        if attempt:
            time.sleep(github.PAUSE * 2**attempt)
        run = newest(repository, branch, commit)
        if run and run["conclusion"] not in NOT_RUN:
            return
        try:
            repository.post(f"actions/workflows/{CI}/dispatches", {"ref": branch})
        except github.Unanswered as error:  # it may have been started all the same
            failure: github.GitHubError = error
        except github.GitHubError as error:
            if NO_REF not in str(error):
                raise
            failure = error
        else:
            return
    raise failure
