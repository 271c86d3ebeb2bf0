"""Propose for production what staging runs (`make promote`): a pull request from env/production-next to env/production.

That branch holds one commit on top of production's newest: the same image and model, production's manifests as they
are at the release's commit of main, and the release record. The pull request's diff is thus what changes in the
cluster, and merging it, as a merge commit or squashed, is the release. Argo CD does not follow env/production-next.

Run again, it brings that branch and the pull request up to date, and closes it where there is nothing to promote now.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gitops import owner
from gitops.core import actions
from gitops.core.artifacts import ProjectError, run
from gitops.deployment import deploy
from gitops.integrations import git, github, kustomize
from gitops.integrations.github import GitHub
from gitops.integrations.kustomize import OVERLAYS, PRODUCTION, STAGING
from gitops.releases import release
from gitops.releases.release import BRANCH, MAIN, MANIFESTS, Production, Release
from gitops.rendering.markdown import code, plain, table
from gitops.reporting.report_sections import differences, interval

NEXT = f"{BRANCH}-next"


def main() -> None:
    """Open or edit the pull request, or say why there is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    deploy.add_redeploy_option(parser)
    promote(github.connect(), redeploy=parser.parse_args().redeploy)


def promote(hub: GitHub, *, redeploy: bool = False) -> str | None:
    """Return the commit of env/production-next that is proposed, or None where there is nothing to promote.

    Raises ProjectError for what production has taken back, and where the pull request cannot be opened.
    """
    if STAGING not in kustomize.environments():
        raise ProjectError(f"there is no {OVERLAYS / STAGING}: merges release to production, and nothing is promoted")
    if not git.has_remote():
        raise ProjectError(f"there is no remote named {git.REMOTE}, so nothing was released from here")
    return release.insist(lambda: _propose(hub, redeploy), NEXT)


def _propose(hub: GitHub, redeploy: bool) -> str | None:
    """Do it once. Raises git.Refused where another job came in between."""
    seen = git.fetch(NEXT)  # before staging is read: whoever moves it later may know of a newer release
    staged = release.present(STAGING)
    if staged is None:
        print(f"Nothing was ever released to {STAGING}: nothing to promote.")
        return None
    manifests = git.write_tree(rendered(staged.record))
    tip = git.fetch(BRANCH) or _begin()
    present = release.held(tip)
    if needless := deploy.why_not(staged.record, manifests, present, PRODUCTION):
        print(needless)
        _withdraw(hub, needless)
        return None
    if present and not redeploy:
        try:
            deploy.refuse_rolled_back(staged.record, present, PRODUCTION)
        except ProjectError as error:
            _withdraw(hub, str(error))
            raise
    record = staged.record.model_copy(update={"previous": present.commit if present else None})
    tree = deploy.contents(record, manifests)
    commit = seen
    if seen is None or (git.tree(seen), git.run("log", "-1", "--format=%P", seen)) != (tree, tip):
        commit = git.write_commit(tree, tip, deploy.message(record))
        git.replace(commit, NEXT, seen)
    _show(hub, f"Release {record.title}", body(record, present))
    if (git.fetch(BRANCH), git.fetch(NEXT)) != (tip, commit):
        raise git.Refused(f"{BRANCH} or {NEXT} has moved on meanwhile")
    return commit


def rendered(record: Release) -> dict[str, bytes]:
    """Return production's objects for a release on staging, from its commit of main, whatever is checked out."""
    main_commit = git.fetch(MAIN)
    if main_commit is None or not git.is_ancestor(record.commit, main_commit):
        raise ProjectError(
            f"{STAGING} comes from commit {record.commit[:12]}, which {MAIN} of {git.REMOTE} does not hold in this "
            f"clone: was {MAIN} rewritten, or does the clone lack history (`git fetch --unshallow`)?"
        )
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        git.export(record.commit, Path(folder))
        model = record.model
        return kustomize.render(record.image, model.name, model.sha256, PRODUCTION, Path(folder))


def _begin() -> str:
    """Push a first commit of env/production, which releases nothing, and return it: a pull request needs a base."""
    empty = git.write_tree({MANIFESTS: git.write_tree({".gitkeep": b""})})
    commit = git.write_commit(empty, None, "Begin the release log\n\nThe first promotion is merged into this.\n")
    git.push(commit, BRANCH)
    return commit


def body(record: Release, present: Production | None) -> str:
    """Return the pull request's text: what changes, and what is known of it."""
    old = present.record if present else None
    names = ("model", "commit of main", "data", "MLflow run", "image")
    rows = [
        [name, code(before), code(after)]
        for name, before, after in zip(names, _facts(old), _facts(record), strict=True)
    ]
    facts = table(["", "in production", "proposed"], rows)
    gate = f"Gate, before {STAGING}: {plain(record.gate.reason, 1000)}"
    if record.gate.release != (present.commit if present else None):
        gate += " **It compared with another release than the one in production now.**"
    told = "Staging runs this release; merging this brings it to production. The diff is what changes in the cluster."
    parts = [
        f"{told}\n\n{facts}",
        f"### Gate\n\n{gate}",
        f"### Metrics\n\n{_metrics(record, old)}",
    ]
    if old and (changed := differences(record.params, old.params)):
        parts.append("### Parameters\n\n" + table(["", "in production", "proposed"], changed))
    ours = f"`{NEXT}` is the jobs' own: what is pushed there by others is lost."
    parts.append(f"---\nAfter the merge `make rollback` takes it back. {ours}")
    return "\n\n".join(parts) + "\n"


def _facts(record: Release | None) -> list[str]:
    """Return what tells one release from another, short; of an image named by its digest that alone."""
    if record is None:
        return ["–"] * 5
    run_id, image = record.mlflow_run_id or "none", record.image.rpartition("@")[2]
    return [record.model.version, record.commit[:12], record.data.md5[:12], run_id, image]


def _metrics(record: Release, old: Release | None) -> str:
    """Return both models' metrics, each with its 95 % interval."""
    task = record.params["data"]["task"]
    rows = []
    for name, metric in owner.metrics().METRICS[task].items():
        scores = [known.metrics.get(name) if known else None for known in (old, record)]
        if scores[1]:
            values = [interval(score.value, score.low, score.high) if score else "–" for score in scores]
            rows.append([f"{name} {'↑' if metric.better == 'higher' else '↓'}", *values])
    note = "On the test split, with 95 % intervals; ↑ higher, ↓ lower is better."
    if old and old.test_md5 != record.test_md5:
        note += " **The two were not measured on the same rows.**"
    return table(["metric", "in production", "proposed"], rows) + f"\n\n{note}"


def _show(hub: GitHub, title: str, text: str) -> None:
    """Edit the pull request, or open it. Raises ProjectError that names the setting where Actions may not."""
    told = {"title": title, "body": text}
    try:
        pull = _edit(hub, told) or hub.post("pulls", {**told, "head": NEXT, "base": BRANCH})
    except github.Unanswered:  # it may be there all the same
        if (pull := _edit(hub, told)) is None:
            raise
    except github.GitHubError as error:
        if github.FORBIDDEN not in str(error):
            raise
        raise ProjectError(
            f"{NEXT} is there, but its pull request cannot be opened: {error}. Settings, Actions, General: "
            f"{github.SETTING!r} has to be on; `make github` sees to it"
        ) from None
    print(f"{title}: {pull['html_url']} brings it to production.")
    actions.summarise(f"{pull['html_url']}\n\n{text}")


def _edit(hub: GitHub, change: dict[str, str]) -> dict[str, str] | None:
    """Change the open pull request, and return it; None where there is none."""
    owner = hub.repository.partition("/")[0]
    found = hub.every("pulls", state="open", head=f"{owner}:{NEXT}", base=BRANCH)
    pull: dict[str, str] | None = hub.patch(f"pulls/{found[0]['number']}", change) if found else None
    return pull


def _withdraw(hub: GitHub, why: str) -> None:
    """Close the pull request, if one is open: what it proposes is not what staging runs any more."""
    if pull := _edit(hub, {"state": "closed", "body": plain(why, 1000)}):
        print(f"{pull['html_url']} is closed: it proposed something else.")


if __name__ == "__main__":
    run(main)
