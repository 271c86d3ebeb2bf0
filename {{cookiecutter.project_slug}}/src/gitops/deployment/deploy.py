"""Release the workspace's model (`make deploy`): one commit on env/production, manifests and release record.

Where the project has staging, that is on env/staging, and promote.py takes it on to production; the gate compares with
production, which is what users see.

Argo CD follows the branch; nothing else reaches the cluster. A release is what runs: the manifests and the model
archive. Where the environment has both already, as after a merge of documents, no commit is made, and a job for an
older commit of main never replaces a newer release.

After a rollback main still holds what was taken back, and any merge would bring it out again. A model or archive that
left the environment by going back is therefore refused. It does not matter how the branch went back, by `make rollback`
or `git revert`: the commit's tree is that of an earlier commit.
"""

from __future__ import annotations

import argparse
import os

from gitops.core import params
from gitops.core.artifacts import GATE, ProjectError, read_json, run
from gitops.core.params import Params
from gitops.gate import gate
from gitops.integrations import dvc, git, kustomize
from gitops.integrations.kustomize import PRODUCTION, STAGING
from gitops.releases import release
from gitops.releases.release import MAIN, MANIFESTS, RECORD, Candidate, Production, Release, Verdict

#: `dvc repro` writes it, and a job that may not commit to main leaves it changed. store.stale() checks what it says.
DERIVED = {"dvc.lock"}


def main() -> None:
    """Release what lies in the workspace, or say why not."""
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
        help="release also a model that was rolled back (or REDEPLOY=1)",
    )


def deploy(settings: Params, image: str | None = None, *, redeploy: bool = False) -> str | None:
    """Release the workspace to the first environment and return its branch's new commit; None where there is nothing to
    release.

    Raises ProjectError for whatever speaks against the release. The gate must have judged this very model. Where
    production has moved on since, because another job was faster, the gate judges again here.
    """
    check_source()
    environment = kustomize.first()
    candidate = up_to_date(settings, image)
    rendered = kustomize.render(candidate.image, candidate.model.name, candidate.model.sha256, environment)
    manifests = git.write_tree(rendered)
    kept = False

    def make(present: Production | None) -> tuple[str, str] | None:
        nonlocal kept
        if needless := why_not(candidate, manifests, present, environment):
            print(needless)
            return None
        if present and not redeploy:
            refuse_rolled_back(candidate, present, environment)
        verdict = judged(settings, candidate, present if environment == PRODUCTION else release.production())
        record = Release(**candidate.model_dump(), gate=verdict, previous=present.commit if present else None)
        if not kept:  # before the release: what it names must be there to be had again
            print("Pushing data, model and reports to the DVC remote ...", flush=True)
            dvc.push()
            kept = True
        return contents(record, manifests), message(record)

    commit = release.publish(environment, make)
    if commit:
        print(f"Released {candidate.title} ({candidate.image}): commit {commit[:12]} of {release.branch(environment)}.")
        if environment == STAGING:
            print("`make promote` proposes it for production.")
    return commit


def contents(record: Release, manifests: str) -> str:
    """Store what an environment's branch holds with a release, and return its tree. `manifests` is their tree."""
    return git.write_tree({MANIFESTS: manifests, RECORD: f"{record.model_dump_json(indent=2)}\n".encode()})


def check_source() -> None:
    """Raise ProjectError unless the working tree is that of a commit which main of origin holds."""
    if not git.has_remote():
        raise ProjectError(f"no remote to release to: `git remote add {git.REMOTE} URL`, and push {MAIN}")
    if changed := [path for path in git.changes() if path not in DERIVED]:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ProjectError(f"a release is made from a commit, and these differ from it: {', '.join(changed[:5])}{more}")
    if git.run("rev-parse", "--is-shallow-repository") == "true":
        raise ProjectError("this clone lacks the history that tells older from newer: `git fetch --unshallow`")
    main_commit = git.fetch(MAIN)
    if main_commit is None:
        raise ProjectError(f"{git.REMOTE} has no branch {MAIN}, from which releases are made: push it first")
    if not git.is_ancestor("HEAD", main_commit):
        raise ProjectError(f"HEAD is not on {MAIN} of {git.REMOTE}, from which releases are made: merge and push")


def up_to_date(settings: Params, image: str | None) -> Candidate:
    """Return what lies in the workspace. Raises ProjectError where it does not come from this commit."""
    candidate = release.candidate(settings, image)
    if stale := dvc.stale():
        raise ProjectError(f"{', '.join(stale)}: out of date, so the model is not of this commit; run `make pipeline`")
    return candidate


def why_not(candidate: Candidate, manifests: str, present: Production | None, environment: str) -> str | None:
    """Return why there is nothing to release, or None. Raises ProjectError where main has lost the released commit.

    `manifests` is the tree of the candidate's, and `present` what the environment has now.
    """
    if present is None:
        return None
    name = environment.capitalize()
    running = git.run("rev-parse", f"{present.commit}:{MANIFESTS}")
    if candidate.package.md5 == present.record.package.md5 and manifests == running:
        return f"{name} runs {candidate.title} with these manifests already: nothing to release."
    released, here = present.record.commit, candidate.commit
    if here != released and git.is_ancestor(here, released):
        return f"{name} comes from {released[:12]} of {MAIN}, newer than {here[:12]}: nothing to release."
    if not git.is_ancestor(released, here):
        raise ProjectError(
            f"{environment} comes from commit {released[:12]}, which the history of {here[:12]} does not hold; was "
            f"{MAIN} rewritten? Bring that commit back into it, or roll back to a release that it holds"
        )
    return None


def refuse_rolled_back(candidate: Candidate, present: Production, environment: str) -> None:
    """Raise ProjectError if the candidate's model or archive was in the environment before, and was taken back."""
    for what, value, now in (
        ("model", candidate.model.sha256, present.record.model.sha256),
        ("archive", candidate.package.md5, present.record.package.md5),
    ):
        if value != now and (commit := went_back(present.commit, value)):
            raise ProjectError(
                f"the {what} of {candidate.title} was in {environment} and commit {commit[:12]} of "
                f"{release.branch(environment)} took it back: revert on {MAIN} what made it, or, to release it again "
                "all the same, give REDEPLOY=1"
            )


def went_back(tip: str, value: str) -> str | None:
    """Return the commit of an environment's branch that took `value` out of the record by going back to an earlier one.

    None where there is no such commit. `value` is a digest that the record at `tip` does not hold; only its last
    appearance counts. What went back has an earlier commit's tree. A merge is compared with its first parent.
    """
    log = ("log", "--first-parent", "-m")
    removal = git.run(*log, "-1", "--format=%H", f"-S{value}", tip, "--", RECORD)
    if not removal:
        return None
    tree, *earlier = git.run(*log, "--format=%T", removal).splitlines()
    return removal if tree in earlier else None


def judged(settings: Params, candidate: Candidate, production: Production | None) -> Verdict:
    """Return the gate's word on the candidate beside what is in production. Raises ProjectError unless it accepts."""
    present = production.commit if production else None
    verdict = read_json(GATE, "make gate")
    if verdict["model_sha256"] != candidate.model.sha256:
        raise ProjectError(f"{GATE} is about another model: run `make gate` again")
    judged_against = verdict["release"]
    if judged_against != present:
        if present is None or (judged_against and not git.is_ancestor(judged_against, present)):
            raise ProjectError(f"{GATE} compares with another release than production's: run `make gate` again")
        print("Production has moved on since the gate judged; it judges again.", flush=True)
        verdict = gate.judge(settings)
    if verdict["accepted"] is not True:
        raise ProjectError(f"{verdict['reason']} ({GATE}; mend that, then run `make gate` again)")
    return Verdict.model_validate(verdict)


def message(record: Release) -> str:
    """Return the commit message of a release. Its trailers lead from a commit of main to what it released."""
    return (
        f"Release {record.title}\n\n{record.gate.reason}\n\n"
        f"Main-commit: {record.commit}\nModel-sha256: {record.model.sha256}\nImage: {record.image}\n"
    )


if __name__ == "__main__":
    run(main)
