"""Propose staging's release for production (`make promote`): a pull request from env/production-next to env/production.

That branch holds one commit on top of production's newest: the same image and model, production's manifests as of the
release's commit of main, the release record and the model card. The pull request's diff therefore shows what changes in
the cluster, and merging it, as a merge commit or squashed, is the release. Argo CD does not follow env/production-next.

It waits until the release has been live on staging for `promotion.soak_hours` (soak.py), unless NOW=1 is set. Run
again, it updates the branch and the pull request, or closes it where staging runs another release or there is nothing
to promote. What a person has closed it proposes again with NOW=1 only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from gitops.core import actions
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo
from gitops.deployment import deploy, held, soak
from gitops.deployment.proposal import NEXT, body, trailer
from gitops.integrations import argo_cd, git, github, kustomize
from gitops.integrations.github import GitHub
from gitops.integrations.kustomize import OVERLAYS, PRODUCTION, STAGING
from gitops.releases import release
from gitops.releases.record import Release
from gitops.releases.release import BRANCH, MAIN, MANIFESTS
from gitops.rendering.markdown import plain


def main() -> None:
    """Open or edit the pull request, or print why there is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    deploy.add_redeploy_option(parser)
    now = os.environ.get("NOW") == "1"
    parser.add_argument("--now", action="store_true", default=now, help="do not wait for staging (or NOW=1)")
    arguments = parser.parse_args()
    try:
        promote(github.connect(), redeploy=arguments.redeploy, now=arguments.now)
    except held.Held as error:
        if os.environ.get("GITHUB_EVENT_NAME") != "schedule":  # the release was told already: not each hour again
            raise
        echo(str(error))


def promote(client: GitHub, *, redeploy: bool = False, now: bool = False) -> str | None:
    """Return the commit of env/production-next that is proposed, or None where nothing is to be promoted, or not yet.

    Raises ProjectError for what was rolled back in production, and where the pull request cannot be opened.
    """
    if STAGING not in kustomize.environments():
        raise ProjectError(
            f"there is no {OVERLAYS / STAGING}: merges release straight to production, and there is nothing to promote"
        )
    if not git.has_remote():
        raise ProjectError(f"there is no remote named {git.REMOTE}, so nothing was released from here")
    return release.retry(lambda: _propose(client, redeploy, now), NEXT)


def _propose(client: GitHub, redeploy: bool, now: bool) -> str | None:
    """Try once. Raises git.Refused where another job came in between."""
    seen = git.fetch(NEXT)  # before staging is read: a job that moves it later may have read a newer release
    staged = release.present(STAGING)
    if staged is None:
        echo(f"Nothing was ever released to {STAGING}: nothing to promote.")
        return None
    objects = rendered(staged.record)
    manifests = git.write_tree(objects)
    tip = git.fetch(BRANCH)
    present = release.at(tip)
    if reason := deploy.nothing_to_release(staged.record, manifests, present, PRODUCTION):
        _nothing(client, reason)
        return None
    try:
        lifts = held.check(staged.record, manifests, present, PRODUCTION, redeploy)
    except held.Held as error:
        _withdraw(client, str(error))
        raise
    record = staged.record.model_copy(update={"previous": present.commit if present else None, "lifts": lifts})
    wait = soak.waiting(client, staged)
    if not now and (reason := _not_yet(client, record, seen, wait)):
        _nothing(client, reason)
        return None
    tip = tip or _begin()
    tree = deploy.contents(record, manifests, release.card(staged.commit))
    commit = seen
    if seen is None or (git.tree(seen), git.run("log", "-1", "--format=%P", seen)) != (tree, tip):
        commit = git.write_commit(tree, tip, deploy.message(record))
        git.replace(commit, NEXT, seen)
    needed = argo_cd.needed(objects, release.manifests(present.commit) if present else {})
    _show(client, f"Release {record.title}", body(record, present, wait, needed))
    if (git.fetch(BRANCH), git.fetch(NEXT)) != (tip, commit):
        raise git.Refused(f"{BRANCH} or {NEXT} has changed meanwhile")
    return commit


def rendered(record: Release) -> dict[str, bytes]:
    """Return production's manifests for staging's release, from its commit of main, whatever is checked out."""
    main_commit = git.fetch(MAIN)
    if main_commit is None or not git.is_ancestor(record.commit, main_commit):
        raise ProjectError(
            f"{STAGING} runs commit {record.commit[:12]}, which is not on {MAIN} of {git.REMOTE} in this clone: was "
            f"{MAIN} rewritten, or is the clone shallow (`git fetch --unshallow`)?"
        )
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        git.export(record.commit, Path(folder))
        model = record.model
        return kustomize.render(record.image, model.name, model.sha256, PRODUCTION, Path(folder))


def _begin() -> str:
    """Push a first commit of env/production, without a release, and return it: a pull request needs a base."""
    empty = git.write_tree({MANIFESTS: git.write_tree({".gitkeep": b""})})
    commit = git.write_commit(empty, None, "Begin the release log\n\nThe first promotion is merged into this.\n")
    git.push(commit, BRANCH)
    return commit


def _show(client: GitHub, title: str, text: str) -> None:
    """Edit the pull request, or open it. Raises ProjectError naming GitHub's setting where Actions may not open one."""
    change = {"title": title, "body": text}
    try:
        pull = _edit(client, change) or client.post("pulls", {**change, "head": NEXT, "base": BRANCH})
    except github.Unanswered:  # it may have been opened all the same
        if (pull := _edit(client, change)) is None:
            raise
    except github.GitHubError as error:
        if github.FORBIDDEN not in str(error):
            raise
        raise ProjectError(
            f"{NEXT} was pushed, but its pull request cannot be opened: {error}. Switch on {github.SETTING!r} in "
            "Settings, Actions, General, or run `make github`, which does it"
        ) from None
    echo(f"{title}: merge {pull['html_url']} to bring it to production.")
    actions.summarise(f"{pull['html_url']}\n\n{text}")


def _pull(client: GitHub, state: str = "open") -> dict[str, Any] | None:
    """Return the newest pull request of that state, or None."""
    login = client.repository.partition("/")[0]
    found = client.get("pulls", state=state, head=f"{login}:{NEXT}", base=BRANCH, per_page=1)
    return found[0] if found else None


def _not_yet(client: GitHub, record: Release, seen: str | None, wait: str | None) -> str | None:
    """Return why the release is not proposed: `wait`, but not where it is already, or a person has closed the proposal.

    `seen` is the commit of env/production-next.
    """
    if _pull(client) is None:
        closed = _pull(client, "closed")  # _withdraw leaves a text without the trailer
        if closed and not closed.get("merged_at") and trailer(record) in (closed.get("body") or ""):
            return f"{closed['html_url']} was closed: the workflow Promote with `now`, or NOW=1, opens another."
    elif seen and git.run("log", "-1", "--format=%B", seen).strip() == deploy.message(record).strip():
        return None
    return wait


def _edit(client: GitHub, change: dict[str, str]) -> dict[str, Any] | None:
    """Change the open pull request, and return it; None where there is none."""
    found = _pull(client)
    pull: dict[str, Any] | None = client.patch(f"pulls/{found['number']}", change) if found else None
    return pull


def _nothing(client: GitHub, reason: str) -> None:
    """Say why nothing is proposed, and close what is."""
    echo(reason)
    _withdraw(client, reason)


def _withdraw(client: GitHub, reason: str) -> None:
    """Close the pull request, if one is open: what it proposes is not, or not yet, to be released."""
    if pull := _edit(client, {"state": "closed", "body": plain(reason, 1000)}):
        echo(f"Closed {pull['html_url']}, whose proposal is outdated.")


if __name__ == "__main__":
    run(main)
