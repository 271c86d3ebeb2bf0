"""The comment that tells a merged pull request where its change was released, and how to take that back.

It says what was committed to env/<environment>. Whether that is live the cluster knows, and says itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gitops.integrations import cml, git
from gitops.integrations.cml import Comment
from gitops.integrations.github import GitHub
from gitops.rendering.markdown import code

#: Where releases go first: to staging, in a project that has it.
STAGING, PRODUCTION = "staging", "production"

RECORD = "release.json"

#: Commits of main that one release may be the first to hold: GitHub drops the waiting runs of all but the newest.
COMMITS = 20


def of_head(repository: GitHub) -> list[Comment] | str:
    """Return the comments on the release of the commit that is checked out, or why there is none.

    One for each pull request whose merge is that commit, and, where it has none yet, for those that were merged since
    the release before.
    """
    environment = STAGING if Path("k8s/overlays", STAGING).is_dir() else PRODUCTION
    branch, head = f"env/{environment}", git.run("rev-parse", "HEAD")
    tip = git.fetch(branch)
    record = _record(tip) if tip else None
    if tip is None or record is None or record["commit"] != head:
        return f"{branch} holds no release of commit {head[:12]}"
    text = _text(repository, record, environment, tip)
    found: dict[int, Comment] = {}
    for commit in _commits(record, head):
        for number in _merged(repository, commit):
            found.setdefault(number, Comment(number, head, text, cml.RELEASE, once=commit != head))
    return [*found.values()] or f"no merged pull request holds commit {head[:12]}"


def _record(commit: str) -> dict[str, Any] | None:
    """Return the release record in a commit of an environment's branch; None where there is none."""
    if not git.exists(f"{commit}:{RECORD}"):
        return None
    record: dict[str, Any] = json.loads(git.run("show", f"{commit}:{RECORD}"))
    return record


def _commits(record: dict[str, Any], head: str) -> list[str]:
    """Return the commits of main that this release is the first to hold, the newest first."""
    previous = record.get("previous")
    before = (_record(previous) or {}).get("commit") if previous else None
    if not before or before == head or not git.exists(before) or not git.is_ancestor(before, head):
        return [head]
    return git.run("rev-list", "--first-parent", f"--max-count={COMMITS}", f"{before}..{head}").splitlines()


def _merged(repository: GitHub, commit: str) -> list[int]:
    """Return the pull requests that were merged into main as this commit, or with it."""
    return [
        int(pull["number"])
        for pull in repository.get(f"commits/{commit}/pulls")
        if pull["merged_at"]
        and pull["base"]["ref"] == git.MAIN
        and pull["base"]["repo"]["full_name"] == repository.repository
    ]


def _text(repository: GitHub, record: dict[str, Any], environment: str, tip: str) -> str:
    title = code(f"{record['model']['name']} {record['model']['version']}")
    address = f"{repository.server}/{repository.repository}/commit/{tip}"
    option, then = "", ""
    if environment == STAGING:
        option, then = ' ARGS="--environment staging"', " Production gets it once the promotion is merged."
    return (
        f"Released as {title} to **{environment}**: commit "
        f"[{tip[:12]}]({address}) of `env/{environment}`. The cluster follows.{then}\n\n"
        f"`make rollback{option}` or the button Rollback under Actions takes it back."
    )
