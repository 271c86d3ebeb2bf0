"""Pull requests that a job proposes: one for each branch, opened or edited, with CI started on it."""

from __future__ import annotations

import os
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.integrations import git, github, github_runs
from gitops.integrations.github import GitHub

#: GitHub refuses a longer text, and a longer title.
LIMIT, TITLE = 65_000, 250

#: Part of GitHub's answer to a draft in a repository whose plan has none, as a private one of a free account.
NO_DRAFTS = "Draft pull requests are not supported"


def propose(client: GitHub, branch: str, commit: str, title: str, text: str, *, warning: str = "") -> str:
    """Start CI on a branch that was pushed, open its pull request or edit the open one, and return its address.

    Outside a workflow the push has started CI. Raises ProjectError; where only CI could not be started, after that.
    """
    refusal: github.GitHubError | None = None
    if os.environ.get("GITHUB_ACTIONS") == "true":
        try:  # first: where this is killed, the next run finds no pull request, and begins again
            github_runs.start(client, branch, commit)
        except github.GitHubError as error:
            refusal = error
    by_hand = f"Start CI by hand: Actions, CI, Run workflow, branch {branch}"
    note = f"\n\n---\n**The checks of this pull request were not started.** {by_hand}." if refusal else ""
    address = open_or_edit(client, branch, title, text[: LIMIT - len(note)] + note, warning=warning)
    if refusal:
        raise ProjectError(f"{address} is open, but its checks were not started: {refusal}. {by_hand}")
    return address


def open_or_edit(client: GitHub, branch: str, title: str, text: str, *, warning: str = "") -> str:
    """Open the branch's pull request, or edit the open one, and return its address. Raises ProjectError.

    With a `warning` it is a draft, which cannot be merged until a person marks it as ready. Where it is none, because
    GitHub's plan has no drafts or it is open already, its title begins with the warning. (Only GraphQL makes a draft of
    an open pull request, and it refuses that to the token of a workflow.)
    """
    contents = {"title": title[:TITLE], "body": text[:LIMIT]}
    ordinary = contents | {"title": f"{warning}{title}"[:TITLE]}
    if present := of_branch(client, branch):
        return str(client.patch(f"pulls/{present['number']}", contents if present["draft"] else ordinary)["html_url"])
    try:
        return _create(client, branch, contents | {"draft": True} if warning else contents)
    except github.GitHubError as error:
        if not warning or NO_DRAFTS not in str(error):
            raise
        return _create(client, branch, ordinary)


def of_branch(client: GitHub, branch: str, state: str = "open") -> dict[str, Any] | None:
    """Return the pull request to main of a branch of this repository, or None."""
    owner = client.repository.partition("/")[0]
    found = client.every("pulls", state=state, base=git.MAIN, head=f"{owner}:{branch}")
    return found[0] if found else None


def _create(client: GitHub, branch: str, contents: dict[str, Any]) -> str:
    """Open the branch's pull request and return its address. Raises ProjectError."""
    try:
        return str(client.post("pulls", {**contents, "head": branch, "base": git.MAIN})["html_url"])
    except github.Unanswered:
        if present := of_branch(client, branch):
            return str(present["html_url"])
        raise
    except github.GitHubError as error:
        if github.FORBIDDEN in str(error):
            raise ProjectError(
                f"{error}; `make github` permits it (Settings, Actions, General: {github.SETTING})"
            ) from None
        raise
