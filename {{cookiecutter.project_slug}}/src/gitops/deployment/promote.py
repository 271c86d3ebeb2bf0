"""Propose staging's release for production (`make promote`): a pull request from env/production-next to env/production.

That branch holds one commit on top of production's newest: the same image and model, production's manifests as of the
release's commit of main, and the release record. The pull request's diff therefore shows what changes in the cluster,
and merging it, as a merge commit or squashed, is the release. Argo CD does not follow env/production-next.

Run again, it updates the branch and the pull request, or closes it where there is nothing to promote any more.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gitops.core import actions
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo
from gitops.deployment import deploy, held
from gitops.integrations import git, github, kustomize
from gitops.integrations.github import GitHub
from gitops.integrations.kustomize import OVERLAYS, PRODUCTION, STAGING
from gitops.releases import release
from gitops.releases.record import Deployed, Release, changed_params
from gitops.releases.release import BRANCH, MAIN, MANIFESTS
from gitops.rendering.markdown import changes, code, interval, plain, table

NEXT = f"{BRANCH}-next"

#: In which direction a metric is better.
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


def main() -> None:
    """Open or edit the pull request, or print why there is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    deploy.add_redeploy_option(parser)
    promote(github.connect(), redeploy=parser.parse_args().redeploy)


def promote(client: GitHub, *, redeploy: bool = False) -> str | None:
    """Return the commit of env/production-next that is proposed, or None where there is nothing to promote.

    Raises ProjectError for what was rolled back in production, and where the pull request cannot be opened.
    """
    if STAGING not in kustomize.environments():
        raise ProjectError(
            f"there is no {OVERLAYS / STAGING}: merges release straight to production, and there is nothing to promote"
        )
    if not git.has_remote():
        raise ProjectError(f"there is no remote named {git.REMOTE}, so nothing was released from here")
    return release.retry(lambda: _propose(client, redeploy), NEXT)


def _propose(client: GitHub, redeploy: bool) -> str | None:
    """Try once. Raises git.Refused where another job came in between."""
    seen = git.fetch(NEXT)  # before staging is read: a job that moves it later may have read a newer release
    staged = release.present(STAGING)
    if staged is None:
        echo(f"Nothing was ever released to {STAGING}: nothing to promote.")
        return None
    manifests = git.write_tree(rendered(staged.record))
    tip = git.fetch(BRANCH) or _begin()
    present = release.at(tip)
    if reason := deploy.nothing_to_release(staged.record, manifests, present, PRODUCTION):
        echo(reason)
        _withdraw(client, reason)
        return None
    try:
        lifts = held.check(staged.record, manifests, present, PRODUCTION, redeploy)
    except held.Held as error:
        _withdraw(client, str(error))
        raise
    record = staged.record.model_copy(update={"previous": present.commit if present else None, "lifts": lifts})
    tree = deploy.contents(record, manifests)
    commit = seen
    if seen is None or (git.tree(seen), git.run("log", "-1", "--format=%P", seen)) != (tree, tip):
        commit = git.write_commit(tree, tip, deploy.message(record))
        git.replace(commit, NEXT, seen)
    _show(client, f"Release {record.title}", body(record, present))
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


def body(record: Release, present: Deployed | None) -> str:
    """Return the pull request's text: what changes, the gate's reason, metrics and parameters."""
    old = present.record if present else None
    names = ("model", "commit of main", "data", "MLflow run", "image")
    rows = [
        [name, code(before), code(after)]
        for name, before, after in zip(names, _identity(old), _identity(record), strict=True)
    ]
    if record.threshold is not None:
        shown = [f"{it.threshold:.4g}" if it and it.threshold is not None else "–" for it in (old, record)]
        rows.append(["decision threshold", *shown])
    overview = table(["", "in production", "proposed"], rows)
    gate = f"Gate, before {STAGING}: {plain(record.gate.reason, 1000)}"
    if record.gate.release != (present.commit if present else None):
        gate += " **It compared with another release than the one in production now.**"
    intro = "Staging runs this release; merging brings it to production. The diff shows what changes in the cluster."
    if record.lifts:
        rollbacks = ", ".join(code(commit[:12]) for commit in record.lifts)
        intro += f" **Production had rolled this back ({rollbacks}); REDEPLOY=1 proposes it again.**"
    parts = [
        f"{intro}\n\n{overview}",
        f"### Gate\n\n{gate}",
        f"### Metrics\n\n{_metrics(record, old)}",
    ]
    if old and (changed := changed_params(old.params, record.params)):
        parts.append("### Parameters\n\n" + table(["", "in production", "proposed"], changes(changed)))
    warning = f"Only `make promote` writes to `{NEXT}`: other commits on it are lost."
    parts.append(f"---\nAfter the merge, `make rollback` takes it back. {warning}")
    return "\n\n".join(parts) + "\n"


def _identity(record: Release | None) -> list[str]:
    """Return what distinguishes a release from another; of an image reference with a digest, only the digest."""
    if record is None:
        return ["–"] * 5
    run_id, image = record.mlflow_run_id or "none", record.image.rpartition("@")[2]
    return [record.model.version, record.commit[:12], record.data.md5[:12], run_id, image]


def _metrics(record: Release, old: Release | None) -> str:
    """Return both models' metrics, each with its 95 % interval."""
    rows = []
    for name, new in record.metrics.items():
        scores = (old.metrics.get(name) if old else None, new)
        values = [interval(score.value, score.low, score.high) if score else "–" for score in scores]
        rows.append([f"{plain(name)}{ARROWS[new.better]}", *values])
    note = "On the test split, with 95 % intervals; ↑ higher, ↓ lower is better."
    if old and old.test_md5 != record.test_md5:
        note += " **The two were not measured on the same rows.**"
    return table(["metric", "in production", "proposed"], rows) + f"\n\n{note}"


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


def _edit(client: GitHub, change: dict[str, str]) -> dict[str, str] | None:
    """Change the open pull request, and return it; None where there is none."""
    login = client.repository.partition("/")[0]
    found = client.every("pulls", state="open", head=f"{login}:{NEXT}", base=BRANCH)
    pull: dict[str, str] | None = client.patch(f"pulls/{found[0]['number']}", change) if found else None
    return pull


def _withdraw(client: GitHub, reason: str) -> None:
    """Close the pull request, if one is open: staging no longer runs what it proposes."""
    if pull := _edit(client, {"state": "closed", "body": plain(reason, 1000)}):
        echo(f"Closed {pull['html_url']}, whose proposal is outdated.")


if __name__ == "__main__":
    run(main)
