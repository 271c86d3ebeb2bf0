"""The branch `retrain/...` on origin that proposes a candidate and, on GitHub, its pull request.

Git keeps all of the state: the branches that are open, and in the ref LAST when the last retraining ended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.integrations import git, github
from gitops.integrations.github import GitHub
from gitops.releases import release
from gitops.rendering.markdown import defang

PREFIX = "retrain/"

#: Points to the commit of the newest retraining, refused or not. It is no branch, so clones and GitHub do not show it.
LAST = "refs/retrain/last"

#: Before the title of a pull request whose rows nobody has looked at, where it is no draft.
REVIEW = "Do not merge before a look at the rows: "

#: GitHub refuses a longer text.
LIMIT = 65_000

CHECKS = (
    "**The checks of this pull request wait for you:** GitHub starts none for a pull request that its own token opens. "
    "Approve them below, or close and reopen this pull request. With a GitHub App (`APP_ID`, `APP_PRIVATE_KEY`) they "
    "start automatically."
)


def client() -> GitHub | None:
    """Return a client of GitHub where there is a token, else None: on a laptop, or with an origin elsewhere."""
    return github.connect() if os.environ.get("GITHUB_TOKEN") else None


def unmerged(client: GitHub | None, main: str) -> list[str]:
    """Return the branches of retraining that are not merged; on GitHub those with an open pull request."""
    if client:
        heads = [pull["head"] for pull in client.every("pulls", state="open", base=release.MAIN)]
        ours = [head["ref"] for head in heads if (head["repo"] or {}).get("full_name") == client.repository]
        return [name for name in ours if name.startswith(PREFIX)]
    listed = git.run("ls-remote", git.REMOTE, f"refs/heads/{PREFIX}*").splitlines()
    names = [line.partition("\trefs/heads/")[2] for line in listed]
    return [name for name in names if (tip := git.fetch(name)) and not git.is_ancestor(tip, main)]


def last() -> datetime | None:
    """Return when the newest retraining ended, or None where there was none."""
    if not git.run("ls-remote", git.REMOTE, LAST):
        return None
    git.run("fetch", "--quiet", "--no-tags", git.REMOTE, f"+{LAST}:{LAST}")
    return _time(LAST)


def _time(revision: str) -> datetime:
    return datetime.fromtimestamp(int(git.run("log", "-1", "--format=%ct", revision)), UTC)


def record(commit: str) -> None:
    """Record on origin that a retraining has ended: `commit` is the candidate's, or that of `refusal`."""
    git.run("push", "--quiet", "--force", git.REMOTE, f"{commit}:{LAST}")


def refusal(main: str, message: str) -> str:
    """Store an empty commit whose message describes a refused candidate, and return it."""
    return git.write_commit(git.run("rev-parse", f"{main}^{{tree}}"), main, message)


def record_newest(branches: Sequence[str]) -> None:
    """Record the newest of the branches, in case a run was killed between the push and its record."""
    for tip in filter(None, map(git.fetch, branches)):
        ended = last()
        if ended is None or _time(tip) > ended:
            record(tip)


def commit(main: str, paths: Sequence[Path], message: str) -> str:
    """Store the present contents of `paths` on top of `main`, the commit that is checked out, and return the commit."""
    git.run("add", "--force", "--", *map(str, paths))  # by force: an object in the repository's DVC remote is ignored
    return git.write_commit(git.run("write-tree"), main, message)


def push(commit: str, branch: str) -> str:
    """Make `commit` the contents of `branch` of origin, and return the branch's commit.

    A branch that already holds the same files on the same commit of main stays as it is: an earlier run was killed.
    """
    seen = git.fetch(branch)
    if seen and _contents(seen) == _contents(commit):
        return seen
    git.replace(commit, branch, seen)
    return commit


def _contents(commit: str) -> str:
    return git.run("log", "-1", "--format=%T %P", commit)


def open_or_edit(client: GitHub, branch: str, title: str, text: str, *, review: bool = False) -> str:
    """Open the branch's pull request, or edit the open one, and return its address. Raises ProjectError.

    Where its rows need a `review` it is a draft, which cannot be merged until a person marks it as ready. Where it is
    none, because GitHub's plan has no drafts or it is open already, its title says so. (Only GraphQL makes a draft of
    an open pull request, and it refuses that to the token of a workflow.)
    """
    note = "" if os.environ.get("APP_ID") else f"\n\n---\n{CHECKS}"
    contents = {"title": defang(title), "body": defang(text)[: LIMIT - len(note)] + note}
    ordinary = contents | ({"title": REVIEW + contents["title"]} if review else {})
    if present := _open(client, branch):
        return str(client.patch(f"pulls/{present['number']}", contents if present["draft"] else ordinary)["html_url"])
    try:
        return _create(client, branch, contents | {"draft": True} if review else contents)
    except github.GitHubError as error:
        if not review or github.NO_DRAFTS not in str(error):
            raise
        return _create(client, branch, ordinary)


def _create(client: GitHub, branch: str, contents: dict[str, Any]) -> str:
    """Open the branch's pull request and return its address. Raises ProjectError."""
    try:
        return str(client.post("pulls", {**contents, "head": branch, "base": release.MAIN})["html_url"])
    except github.Unanswered:
        if present := _open(client, branch):
            return str(present["html_url"])
        raise
    except github.GitHubError as error:
        if github.FORBIDDEN in str(error):
            raise ProjectError(
                f"{error}; `make github` permits it (Settings, Actions, General: {github.SETTING})"
            ) from None
        raise


def _open(client: GitHub, branch: str) -> dict[str, Any] | None:
    owner = client.repository.partition("/")[0]
    found = client.every("pulls", state="open", base=release.MAIN, head=f"{owner}:{branch}")
    return found[0] if found else None
