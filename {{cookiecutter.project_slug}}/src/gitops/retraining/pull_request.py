"""A retraining's result for people: a branch `retrain/...` on origin and, on GitHub, its pull request.

Nothing is kept but in Git: which proposal is open, and when the last retraining was, which the ref LAST tells.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gitops.core.artifacts import ProjectError
from gitops.integrations import git, github
from gitops.integrations.github import GitHub
from gitops.releases import release
from gitops.rendering.markdown import defang

PREFIX = "retrain/"

#: Names the commit that tells of the newest retraining, refused or not. It is no branch, so nothing shows or clones it.
LAST = "refs/retrain/last"

#: GitHub refuses a longer text.
LIMIT = 65_000

CHECKS = (
    "**The checks of this pull request wait for you:** GitHub starts none for what its own token opens. Approve them "
    "below, or close and reopen this pull request. With a GitHub App (`APP_ID`, `APP_PRIVATE_KEY`) they start alone."
)


@dataclass(frozen=True)
class Proposal:
    """A branch of origin and, on GitHub, the address of its pull request."""

    branch: str
    commit: str
    address: str | None


def hub() -> GitHub | None:
    """Return GitHub where there is a token for it; on a laptop, or with an origin elsewhere, None."""
    return github.connect() if os.environ.get("GITHUB_TOKEN") else None


def unmerged(hub: GitHub | None, main: str) -> list[str]:
    """Return the branches that nobody has merged; on GitHub those with an open pull request."""
    if hub:
        heads = [pull["head"] for pull in hub.every("pulls", state="open", base=release.MAIN)]
        ours = [head["ref"] for head in heads if (head["repo"] or {}).get("full_name") == hub.repository]
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
    """Remember on origin that a retraining has ended: with the candidate's commit, or that of a refusal."""
    git.run("push", "--quiet", "--force", git.REMOTE, f"{commit}:{LAST}")


def refusal(main: str, message: str) -> str:
    """Store a commit that tells of a refused candidate and changes nothing, and return it."""
    return git.write_commit(git.run("rev-parse", f"{main}^{{tree}}"), main, message)


def catch_up(branches: Sequence[str]) -> None:
    """Remember the newest of the proposals, whose run may have been killed before it did."""
    for tip in filter(None, map(git.fetch, branches)):
        ended = last()
        if ended is None or _time(tip) > ended:
            record(tip)


def commit(main: str, paths: Sequence[Path], message: str) -> str:
    """Store the present contents of `paths` on top of `main`, the commit that is checked out, and return the commit."""
    git.run("add", "--force", "--", *map(str, paths))  # by force: an object in the repository's DVC remote is ignored
    return git.write_commit(git.run("write-tree"), main, message)


def push(made: str, branch: str) -> str:
    """Make `made` the contents of `branch` of origin, and return the branch's commit.

    A branch that holds the same files on the same commit of main is left as it is: this has run before, and was ended.
    """
    seen = git.fetch(branch)
    if seen and _contents(seen) == _contents(made):
        return seen
    git.replace(made, branch, seen)
    return made


def _contents(commit: str) -> str:
    return git.run("log", "-1", "--format=%T %P", commit)


def show(hub: GitHub, branch: str, title: str, text: str) -> str:
    """Open the branch's pull request, or edit the one that it has, and return its address. Raises ProjectError."""
    told = "" if os.environ.get("APP_ID") else f"\n\n---\n{CHECKS}"
    shown = {"title": defang(title), "body": defang(text)[: LIMIT - len(told)] + told}
    if present := _open(hub, branch):
        return str(hub.patch(f"pulls/{present}", shown)["html_url"])
    try:
        return str(hub.post("pulls", {**shown, "head": branch, "base": release.MAIN})["html_url"])
    except github.Unanswered:
        if number := _open(hub, branch):
            return str(hub.get(f"pulls/{number}")["html_url"])
        raise
    except github.GitHubError as error:
        if github.FORBIDDEN in str(error):
            raise ProjectError(
                f"{error}; `make github` permits it (Settings, Actions, General: {github.SETTING})"
            ) from None
        raise


def _open(hub: GitHub, branch: str) -> int | None:
    owner = hub.repository.partition("/")[0]
    found = hub.every("pulls", state="open", base=release.MAIN, head=f"{owner}:{branch}")
    return int(found[0]["number"]) if found else None
