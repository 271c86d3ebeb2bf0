"""`make propose`: push what `make retrain` has left in build/candidate, and open its pull request.

In a workflow it is a job of its own, with a token that can write: only the standard library is imported, and the folder
is data. Elsewhere `make retrain` calls it. Run again after a kill, it ends in the same state.
"""

from __future__ import annotations

from gitops.core import actions
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import annotate, echo
from gitops.integrations import git, github_pulls
from gitops.integrations.github import GitHub
from gitops.rendering.markdown import defang
from gitops.retraining import handover, proposals
from gitops.retraining.handover import Candidate

#: How a retraining can end, and the line that says so.
OUTCOMES = {
    "ready": "Ready",
    "opened": "Opened",
    "refused": "Nothing opened",
    "nothing": "No retraining",
    "waits": "No retraining yet",
}

#: Those after which there is something for `make propose` in a workflow.
LEFT = ("ready", "refused")


def main() -> int:
    """Propose the candidate in build/candidate, or record that there was a refused one."""
    if (client := proposals.client()) is None and handover.in_workflow():
        raise ProjectError("GITHUB_TOKEN is not set: a token that may write contents and pull requests is needed")
    candidate = handover.read()
    propose(candidate, client)
    if not candidate.branch:
        echo(f"recorded in {proposals.LAST} of {git.REMOTE}: the candidate was refused")
    return 0


def propose(candidate: Candidate, client: GitHub | None) -> None:
    """Push the candidate's branch and record it; open its pull request, or say how to merge it. Raises ProjectError."""
    tree = git.overlay(candidate.main, candidate.files) if candidate.files else git.tree(candidate.main)
    commit, branch = git.write_commit(tree, candidate.main, candidate.message), candidate.branch
    if not branch:
        proposals.record(commit)
        return
    commit = git.propose(commit, branch, proposals.LAST)
    if client:
        warning = proposals.REVIEW if candidate.review else ""
        title, text = defang(candidate.title), defang(candidate.body)
        detail = github_pulls.propose(client, branch, commit, title, text, warning=warning)
    else:
        merge = f"`git fetch && git merge {git.REMOTE}/{branch}` and a push of main release it"
        detail = f"{branch} on {git.REMOTE}; {merge}"
        if candidate.review:
            detail += f"; look at the rows in reports/retrain/report.md before you merge: {candidate.review}"
    finish("opened", detail, branch)


def finish(status: str, detail: str, branch: str = "") -> int:
    """Report the outcome on the console, on the run's page and to later steps of the workflow; return 0."""
    line = f"{OUTCOMES[status]}: {detail}"
    echo(line)
    if status in ("refused", "nothing"):
        annotate("warning", "Retraining", detail)
    actions.summarise(defang(line))
    actions.output({"status": status, "branch": branch, "propose": "true" if status in LEFT else ""})
    return 0


if __name__ == "__main__":
    run(main)
