"""What origin knows of retrainings: the branches that propose candidates, and when the last retraining ended.

Git keeps all of the state: the branches `retrain/...` that are open, and the ref LAST.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from gitops.integrations import git, github, github_pulls
from gitops.integrations.github import GitHub
from gitops.retraining.handover import PREFIX

#: Points to the commit of the newest retraining, refused or not. It is no branch, so clones and GitHub do not show it.
LAST = "refs/retrain/last"

#: Before the title of a pull request whose rows nobody has looked at, where it is no draft.
REVIEW = "Do not merge before a look at the rows: "


def client() -> GitHub | None:
    """Return a client of GitHub where there is a token, else None: on a laptop, or with an origin elsewhere."""
    return github.connect() if os.environ.get("GITHUB_TOKEN") else None


def unmerged(client: GitHub | None, main: str) -> list[str]:
    """Return the branches of retraining that are not merged; on GitHub those with an open pull request."""
    if client:
        heads = [pull["head"] for pull in client.every("pulls", state="open", base=git.MAIN)]
        ours = [head["ref"] for head in heads if (head["repo"] or {}).get("full_name") == client.repository]
        return [name for name in ours if name.startswith(PREFIX)]
    return [name for name in _tips() if (tip := git.fetch(name)) and not git.is_ancestor(tip, main)]


def last(client: GitHub | None) -> datetime | None:
    """Return when the newest retraining ended; None where there was none, or its pull request was never opened.

    The latter was killed between its push and the end: the next one proposes the same.
    """
    if not (listed := git.run("ls-remote", git.REMOTE, LAST)):
        return None
    branches = [name for name, tip in _tips().items() if tip == listed.split()[0]]
    if client and branches and not any(github_pulls.of_branch(client, name, "all") for name in branches):
        return None
    git.run("fetch", "--quiet", "--no-tags", git.REMOTE, f"+{LAST}:{LAST}")
    return datetime.fromtimestamp(int(git.run("log", "-1", "--format=%ct", LAST)), UTC)


def record(commit: str) -> None:
    """Record on origin that a retraining has ended with a refused candidate, which `commit` describes."""
    git.run("push", "--quiet", "--force", git.REMOTE, f"{commit}:{LAST}")


def _tips() -> dict[str, str]:
    """Return the branches of candidates on origin, each with its newest commit."""
    lines = git.run("ls-remote", git.REMOTE, f"refs/heads/{PREFIX}*").splitlines()
    return {ref.removeprefix("refs/heads/"): tip for tip, ref in (line.split("\t") for line in lines)}
