"""Release what `make plan` has decided (`make deploy`): one commit on env/production.

The commit holds the manifests, the release record and the model card.

A project with staging releases to env/staging, and promote.py proposes that for production. The gate compares with
production in both cases, because that is what users get.

Argo CD follows the branch; nothing else reaches the cluster. A release consists of the manifests and the model archive.
Where the environment has both already, as after a merge of documents, no commit is made, and a job for an older commit
of main never replaces a newer release.

After a rollback main still holds what was taken back, and any merge would release it again. That is refused until main
undoes it or a person sets REDEPLOY=1, which the release records (held.py, gitops/releases/holds.py).

The job that runs this may push to the environments' branches. It has only the environment `release`, and all that it
takes from the jobs before is the plan and the image's name.
"""

from __future__ import annotations

import argparse
import os

from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo
from gitops.deployment import held, planned
from gitops.deployment.planned import Plan
from gitops.integrations import git, kustomize
from gitops.integrations.kustomize import PRODUCTION, STAGING
from gitops.releases import history, release, workspace
from gitops.releases.record import BADGE, CARD, RECORD, Candidate, Deployed, Release
from gitops.releases.release import MAIN, MANIFESTS
from gitops.rendering import badge


def main() -> None:
    """Release what was planned, or print why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_image_option(parser)
    add_redeploy_option(parser)
    arguments = parser.parse_args()
    deploy(arguments.image, redeploy=arguments.redeploy)


def add_redeploy_option(parser: argparse.ArgumentParser) -> None:
    """Add --redeploy to a command."""
    parser.add_argument(
        "--redeploy",
        action="store_true",
        default=os.environ.get("REDEPLOY") == "1",
        help="release even what was rolled back (or REDEPLOY=1)",
    )


def deploy(image: str | None = None, *, redeploy: bool = False) -> str | None:
    """Release the planned candidate to the first environment; return the new commit of its branch.

    Returns None where there is nothing to release. Raises ProjectError where there is no plan for what is checked out,
    where a rollback holds it up, and where production has changed since the gate compared with it.
    """
    check_source()
    plan = planned.read()
    environment = kustomize.first()
    candidate = plan.candidate.model_copy(update={"image": image}) if image else plan.candidate
    rendered = kustomize.render(candidate.image, candidate.model.name, candidate.model.sha256, environment)
    manifests = git.write_tree(rendered)

    def make(present: Deployed | None) -> tuple[str, str] | None:
        if reason := nothing_to_release(candidate, manifests, present, environment):
            echo(reason)
            return None
        lifts = held.check(candidate, manifests, present, environment, redeploy)
        require_same_production(plan, present if environment == PRODUCTION else release.production())
        previous = present.commit if present else None
        record = Release(**candidate.model_dump(), gate=plan.gate, previous=previous, lifts=lifts)
        return contents(record, manifests, plan.card), message(record)

    commit = release.publish(environment, make)
    if commit:
        echo(f"Released {candidate.title} ({candidate.image}): commit {commit[:12]} of {release.branch(environment)}.")
        if environment == STAGING:
            echo("`make promote` proposes it for production.")
    return commit


def require_same_production(plan: Plan, production: Deployed | None) -> None:
    """Raise ProjectError where the gate has compared the candidate with another release than the one in production."""
    present = production.commit if production else None
    if plan.gate.release != present:
        then, now = (commit[:12] if commit else "no release" for commit in (plan.gate.release, present))
        raise ProjectError(
            f"{PRODUCTION} has changed since the gate compared {plan.candidate.title} with it (then {then}, now {now}):"
            " run `make gate` and `make plan` again, on GitHub all jobs of this run"
        )


def contents(record: Release, manifests: str, card: str | None) -> str:
    """Store the contents of an environment's branch and return their tree.

    `manifests` is the tree of the manifests, `card` the model card, None for a release that has none.
    """
    files = {RECORD: f"{record.model_dump_json(indent=2)}\n"} | ({CARD: card} if card else {})
    if record.debt:
        points = min(record.debt.values())
        colour = "#c33" if points < 1 else "#a70" if points < 3 else "#373"
        files[BADGE] = badge.svg("ML Test Score", f"{points:g} of 7", colour)
    return git.write_tree({MANIFESTS: manifests} | {name: text.encode() for name, text in files.items()})


def check_source() -> None:
    """Raise ProjectError unless the working tree is that of a commit on main of origin."""
    if not git.has_remote():
        raise ProjectError(f"no remote to release to: `git remote add {git.REMOTE} URL`, and push {MAIN}")
    workspace.require_committed("a release is made from a commit")
    history.require_full_clone()
    main_commit = git.fetch(MAIN)
    if main_commit is None:
        raise ProjectError(f"{git.REMOTE} has no branch {MAIN}, from which releases are made: push it first")
    if not git.is_ancestor("HEAD", main_commit):
        raise ProjectError(f"HEAD is not on {MAIN} of {git.REMOTE}, from which releases are made: merge and push")


def nothing_to_release(candidate: Candidate, manifests: str, present: Deployed | None, environment: str) -> str | None:
    """Return why there is nothing to release, or None. Raises ProjectError where main has lost the released commit.

    `manifests` is the tree of the candidate's manifests, `present` the environment's present release.
    """
    if present is None:
        return None
    name = environment.capitalize()
    running = git.run("rev-parse", f"{present.commit}:{MANIFESTS}")
    if candidate.package.md5 == present.record.package.md5 and manifests == running:
        return f"{name} already runs {candidate.title} with these manifests: nothing to release."
    released, here = present.record.commit, candidate.commit
    if here != released and git.is_ancestor(here, released):
        return f"{name} runs {released[:12]} of {MAIN}, which is newer than {here[:12]}: nothing to release."
    if not git.is_ancestor(released, here):
        raise ProjectError(
            f"{environment} runs commit {released[:12]}, which is not in the history of {here[:12]}; was "
            f"{MAIN} rewritten? Bring that commit back into {MAIN}, or roll back to a release whose commit is in it"
        )
    return None


def message(record: Release) -> str:
    """Return the commit message of a release. Its trailers find the release of a commit of main, a model, an image."""
    return (
        f"Release {record.title}\n\n{record.gate.reason}\n\n"
        f"Main-commit: {record.commit}\nModel-sha256: {record.model.sha256}\nImage: {record.image}\n"
        + "".join(f"Lifts-rollback: {rollback}\n" for rollback in record.lifts)
    )


if __name__ == "__main__":
    run(main)
