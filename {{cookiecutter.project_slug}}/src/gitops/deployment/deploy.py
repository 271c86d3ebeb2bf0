"""Release the workspace's model (`make deploy`): one commit on env/production with manifests and release record.

A project with staging releases to env/staging, and promote.py proposes that for production. The gate compares with
production in both cases, because that is what users get.

Argo CD follows the branch; nothing else reaches the cluster. A release consists of the manifests and the model archive.
Where the environment has both already, as after a merge of documents, no commit is made, and a job for an older commit
of main never replaces a newer release.

After a rollback main still holds what was taken back, and any merge would release it again. That is refused until main
undoes it or a person sets REDEPLOY=1, which the release records (held.py, gitops/releases/holds.py).
"""

from __future__ import annotations

import argparse
import os

from gitops.core import params
from gitops.core.artifacts import GATE, ProjectError, read_json, run
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.deployment import held
from gitops.gate import gate
from gitops.integrations import dvc, dvc_remote, git, kustomize
from gitops.integrations.kustomize import PRODUCTION, STAGING
from gitops.releases import history, release, workspace
from gitops.releases.record import RECORD, Candidate, Deployed, GateResult, Release
from gitops.releases.release import MAIN, MANIFESTS


def main() -> None:
    """Release the workspace's model, or print why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_image_option(parser)
    add_redeploy_option(parser)
    arguments = parser.parse_args()
    deploy(params.load(), arguments.image, redeploy=arguments.redeploy)


def add_redeploy_option(parser: argparse.ArgumentParser) -> None:
    """Add --redeploy to a command."""
    parser.add_argument(
        "--redeploy",
        action="store_true",
        default=os.environ.get("REDEPLOY") == "1",
        help="release even what was rolled back (or REDEPLOY=1)",
    )


def deploy(settings: Params, image: str | None = None, *, redeploy: bool = False) -> str | None:
    """Release the workspace's model to the first environment; return the new commit of its branch.

    Returns None where there is nothing to release. Raises ProjectError where the model may not be released. The gate
    must have accepted this very model; where production has changed since, it is evaluated again here.
    """
    check_source()
    environment = kustomize.first()
    candidate = workspace.verified(workspace.candidate(settings, image))
    rendered = kustomize.render(candidate.image, candidate.model.name, candidate.model.sha256, environment)
    manifests = git.write_tree(rendered)
    pushed = False

    def make(present: Deployed | None) -> tuple[str, str] | None:
        nonlocal pushed
        if reason := nothing_to_release(candidate, manifests, present, environment):
            echo(reason)
            return None
        lifts = held.check(candidate, manifests, present, environment, redeploy)
        result = accepted(settings, candidate, present if environment == PRODUCTION else release.production())
        previous = present.commit if present else None
        record = Release(**candidate.model_dump(), gate=result, previous=previous, lifts=lifts)
        if not pushed:  # everything that the record references must be retrievable before the release
            echo("Pushing data, model and reports to the DVC remote ...")
            push(candidate)
            pushed = True
        return contents(record, manifests), message(record)

    commit = release.publish(environment, make)
    if commit:
        echo(f"Released {candidate.title} ({candidate.image}): commit {commit[:12]} of {release.branch(environment)}.")
        if environment == STAGING:
            echo("`make promote` proposes it for production.")
    return commit


def push(candidate: Candidate) -> None:
    """Push everything that the record references to the DVC remote. Raises ProjectError."""
    dvc.push()
    md5s = (candidate.model.md5, candidate.package.md5, candidate.predictions.md5, candidate.test_md5)
    for md5 in dvc_remote.ensure(md5s):
        echo(f"The remote had other contents under the name {md5}: they are replaced.")


def contents(record: Release, manifests: str) -> str:
    """Store the contents of an environment's branch and return their tree. `manifests` is the tree of the manifests."""
    return git.write_tree({MANIFESTS: manifests, RECORD: f"{record.model_dump_json(indent=2)}\n".encode()})


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


def accepted(settings: Params, candidate: Candidate, production: Deployed | None) -> GateResult:
    """Return the gate's result for the candidate against the present production. Raises ProjectError if it refuses."""
    present = production.commit if production else None
    result = read_json(GATE, "make gate")
    if result["model_sha256"] != candidate.model.sha256:
        raise ProjectError(f"{GATE} is about another model: run `make gate` again")
    compared = result["release"]
    if compared != present:
        if present is None or (compared and not git.is_ancestor(compared, present)):
            raise ProjectError(f"{GATE} compares with another release than production's: run `make gate` again")
        echo("Production has changed since the gate ran: running it again.")
        result = gate.evaluate(settings)
    if result["accepted"] is not True:
        raise ProjectError(f"{result['reason']} ({GATE}; fix that, then run `make gate` again)")
    return GateResult.model_validate(result)


def message(record: Release) -> str:
    """Return the commit message of a release. Its trailers find the release of a commit of main, a model, an image."""
    return (
        f"Release {record.title}\n\n{record.gate.reason}\n\n"
        f"Main-commit: {record.commit}\nModel-sha256: {record.model.sha256}\nImage: {record.image}\n"
        + "".join(f"Lifts-rollback: {rollback}\n" for rollback in record.lifts)
    )


if __name__ == "__main__":
    run(main)
