"""Release the workspace's model (`make deploy`): one commit on env/production with manifests and release record.

A project with staging releases to env/staging, and promote.py proposes that for production. The gate compares with
production in both cases, because that is what users get.

Argo CD follows the branch; nothing else reaches the cluster. A release consists of the manifests and the model archive.
Where the environment has both already, as after a merge of documents, no commit is made, and a job for an older commit
of main never replaces a newer release.

After a rollback main still holds what was taken back, and any merge would release it again. A model or archive that
was rolled back is therefore refused, by whatever means that happened (`make rollback`, `git revert`): a commit whose
tree equals that of an earlier commit is a rollback.
"""

from __future__ import annotations

import argparse
import os

from gitops.core import params
from gitops.core.artifacts import GATE, ProjectError, read_json, run
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.gate import gate
from gitops.integrations import dvc, git, kustomize
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
        help="release even a model that was rolled back (or REDEPLOY=1)",
    )


def deploy(settings: Params, image: str | None = None, *, redeploy: bool = False) -> str | None:
    """Release the workspace's model to the first environment; return the new commit of its branch.

    Returns None where there is nothing to release. Raises ProjectError where the model may not be released. The gate
    must have accepted this very model; where production has changed since, it is evaluated again here.
    """
    check_source()
    environment = kustomize.first()
    candidate = workspace.candidate(settings, image)
    rendered = kustomize.render(candidate.image, candidate.model.name, candidate.model.sha256, environment)
    manifests = git.write_tree(rendered)
    pushed = False

    def make(present: Deployed | None) -> tuple[str, str] | None:
        nonlocal pushed
        if reason := nothing_to_release(candidate, manifests, present, environment):
            echo(reason)
            return None
        if present and not redeploy:
            refuse_rolled_back(candidate, present, environment)
        result = accepted(settings, candidate, present if environment == PRODUCTION else release.production())
        record = Release(**candidate.model_dump(), gate=result, previous=present.commit if present else None)
        if not pushed:  # everything that the record references must be retrievable before the release
            echo("Pushing data, model and reports to the DVC remote ...")
            dvc.push()
            pushed = True
        return contents(record, manifests), message(record)

    commit = release.publish(environment, make)
    if commit:
        echo(f"Released {candidate.title} ({candidate.image}): commit {commit[:12]} of {release.branch(environment)}.")
        if environment == STAGING:
            echo("`make promote` proposes it for production.")
    return commit


def contents(record: Release, manifests: str) -> str:
    """Store the contents of an environment's branch and return their tree. `manifests` is the tree of the manifests."""
    return git.write_tree({MANIFESTS: manifests, RECORD: f"{record.model_dump_json(indent=2)}\n".encode()})


def check_source() -> None:
    """Raise ProjectError unless the working tree is that of a commit on main of origin."""
    if not git.has_remote():
        raise ProjectError(f"no remote to release to: `git remote add {git.REMOTE} URL`, and push {MAIN}")
    if changed := workspace.uncommitted():
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ProjectError(
            f"a release is made from a commit, and these files differ from it: {', '.join(changed[:5])}{more}"
        )
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


def refuse_rolled_back(candidate: Candidate, present: Deployed, environment: str) -> None:
    """Raise ProjectError if the candidate's model or archive was deployed before and rolled back."""
    for what, value, now in (
        ("model", candidate.model.sha256, present.record.model.sha256),
        ("archive", candidate.package.md5, present.record.package.md5),
    ):
        if value != now and (commit := rolled_back_by(present.commit, value)):
            raise ProjectError(
                f"the {what} of {candidate.title} was in {environment}, and commit {commit[:12]} of "
                f"{release.branch(environment)} rolled it back: revert the change on {MAIN}, or set REDEPLOY=1 to "
                "release it again"
            )


def rolled_back_by(tip: str, value: str) -> str | None:
    """Return the commit of an environment's branch that removed `value` from the record by a rollback, or None.

    `value` is a digest that the record at `tip` does not hold; its last removal counts. A rollback is a commit whose
    tree is that of an earlier commit; a merge is compared with its first parent.
    """
    log = ("log", "--first-parent", "-m")
    removal = git.run(*log, "-1", "--format=%H", f"-S{value}", tip, "--", RECORD)
    if not removal:
        return None
    tree, *earlier = git.run(*log, "--format=%T", removal).splitlines()
    return removal if tree in earlier else None


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
    )


if __name__ == "__main__":
    run(main)
