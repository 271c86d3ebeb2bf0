"""Reading and publishing releases on the branches `env/<environment>`.

Such a branch holds the rendered Kubernetes objects in `manifests/`, which Argo CD applies and nothing else, and beside
them the release record (record.py) and the model card. Each release is one commit or the merge of one, so the branch's
first-parent history is the release log.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.integrations import git
from gitops.integrations.git import MAIN as MAIN
from gitops.integrations.kustomize import PRODUCTION
from gitops.releases.record import CARD, RECORD, Deployed, Release

Pushed = TypeVar("Pushed")

BRANCH = f"env/{PRODUCTION}"  # what users get; branch() names the others
MANIFESTS = "manifests"

#: Pushes that are tried before a release fails, as other jobs may push first.
ATTEMPTS = 5


def branch(environment: str) -> str:
    """Return the name of the branch that holds the environment's releases."""
    return f"env/{environment}"


def read(commit: str) -> Release:
    """Return the record in a commit of an environment's branch. Raises ProjectError where there is no valid one."""
    try:
        return Release.model_validate_json(git.run("show", f"{commit}:{RECORD}"))
    except (git.GitError, ValidationError) as error:
        raise ProjectError(f"commit {commit[:12]} holds no release record, {RECORD}: {error}") from error


def card(commit: str) -> str | None:
    """Return the model card in a commit of an environment's branch; None in a release before there were any."""
    name = f"{commit}:{CARD}"
    return f"{git.run('show', name)}\n" if git.exists(name) else None


def manifests(commit: str) -> dict[str, bytes]:
    """Return file name -> YAML of the Kubernetes objects in a commit of an environment's branch."""
    names = git.run("ls-tree", "--name-only", "-z", f"{commit}:{MANIFESTS}").split("\0")
    return {name: f"{git.run('show', f'{commit}:{MANIFESTS}/{name}')}\n".encode() for name in names if name}


def production() -> Deployed | None:
    """Return the release in production: present(PRODUCTION)."""
    return present(PRODUCTION)


def present(environment: str) -> Deployed | None:
    """Return the environment's release, read from origin, or None where nothing was ever released.

    Without a remote named origin it prints so to standard error and returns None. Raises ProjectError where origin
    cannot be reached: "no release" and "unknown" are different answers.
    """
    if not git.has_remote():
        echo(f"This repository has no remote named {git.REMOTE}, so there is no release.", error=True)
        return None
    return at(git.fetch(branch(environment)))


def at(commit: str | None) -> Deployed | None:
    """Return the release in a commit of an environment's branch; None where no commit up to it has held a record.

    The latter is the case for the branch's first commit, which promote.py makes for the first promotion.
    """
    if commit is None or not git.run("rev-list", "--full-history", "-1", commit, "--", RECORD):
        return None
    return Deployed(commit, read(commit))


def publish(environment: str, make: Callable[[Deployed | None], tuple[str, str] | None]) -> str | None:
    """Push a new commit to the environment's branch, on top of its present release; return the commit.

    `make` takes the present release and returns the new commit's tree and message, or None for no commit, which is
    then returned here too. When another push comes first, `make` is called again with the release that it left. Raises
    ProjectError where origin keeps refusing.
    """
    target = branch(environment)

    def push() -> str | None:
        tip = git.fetch(target)
        made = make(at(tip))
        if made is None:
            return None
        tree, message = made
        commit = git.write_commit(tree, tip, message)
        git.push(commit, target)
        return commit

    return retry(push, target)


def retry(push: Callable[[], Pushed], target: str) -> Pushed:
    """Call `push` until origin accepts, at most ATTEMPTS times; return its result. Raises ProjectError after those."""
    refusal: git.Refused
    for attempt in range(ATTEMPTS):
        try:
            return push()
        except git.Refused as error:
            refusal = error
        echo(f"{git.REMOTE} refused the push; reading the branch again ...")
        time.sleep(random.uniform(0.1, 0.4) * 2**attempt)
    raise ProjectError(f"{git.REMOTE} refused {ATTEMPTS} pushes to {target}; the last error: {refusal}")
