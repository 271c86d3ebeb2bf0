"""Release the workspace's model (`make deploy`): one commit on env/production, manifests and release record.

Argo CD follows that branch; nothing else reaches the cluster. A release is what runs: the manifests and the model
archive. Where production has both already, as after a merge of documents, no commit is made, and a job for an older
commit of main never replaces a newer release.

After a rollback main still holds what was taken back, and any merge would bring it out again. A model or archive that
left production by going back is therefore refused. It does not matter how the branch went back, by `make rollback` or
`git revert`: the commit's tree is that of an earlier commit.
"""

from __future__ import annotations

import argparse
import os

from . import gate, git, kustomize, params, release, store
from .artifacts import GATE, ProjectError, read_json, run
from .params import Params
from .release import BRANCH, MAIN, MANIFESTS, RECORD, Candidate, Production, Release, Verdict

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
    """Release the workspace and return the new commit of env/production, or None where there is nothing to release.

    Raises ProjectError for whatever speaks against the release. The gate must have judged this very model. Where
    production has moved on since, because another job was faster, the gate judges again here.
    """
    check_source()
    candidate = up_to_date(settings, image)
    rendered = kustomize.render(candidate.image, candidate.model.name, candidate.model.sha256)
    manifests = git.write_tree(rendered)
    kept = False

    def make(present: Production | None) -> str | None:
        nonlocal kept
        if needless := why_not(candidate, manifests, present):
            print(needless)
            return None
        if present and not redeploy:
            refuse_rolled_back(candidate, present)
        now = present.commit if present else None
        record = Release(**candidate.model_dump(), gate=judged(settings, candidate, now), previous=now)
        if not kept:  # before the release: what it names must be there to be had again
            print("Pushing data, model and reports to the DVC remote ...", flush=True)
            store.push()
            kept = True
        tree = git.write_tree({MANIFESTS: manifests, RECORD: f"{record.model_dump_json(indent=2)}\n".encode()})
        return git.write_commit(tree, now, message(record))

    commit = release.publish(make)
    if commit:
        print(f"Released {candidate.title} ({candidate.image}): commit {commit[:12]} of {BRANCH}.")
    return commit


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
    if stale := store.stale():
        raise ProjectError(f"{', '.join(stale)}: out of date, so the model is not of this commit; run `make pipeline`")
    return candidate


def why_not(candidate: Candidate, manifests: str, present: Production | None) -> str | None:
    """Return why there is nothing to release, or None. Raises ProjectError where main has lost the released commit."""
    if present is None:
        return None
    running = git.run("rev-parse", f"{present.commit}:{MANIFESTS}")
    if candidate.package.md5 == present.record.package.md5 and manifests == running:
        return f"Production runs {candidate.title} with these manifests already: nothing to release."
    released, here = present.record.commit, candidate.commit
    if here != released and git.is_ancestor(here, released):
        return f"Production comes from {released[:12]} of {MAIN}, newer than {here[:12]}: nothing to release."
    if not git.is_ancestor(released, here):
        raise ProjectError(
            f"production comes from commit {released[:12]}, which the history of {here[:12]} does not hold; was {MAIN} "
            "rewritten? Bring that commit back into it, or roll back to a release that it holds"
        )
    return None


def refuse_rolled_back(candidate: Candidate, present: Production) -> None:
    """Raise ProjectError if the candidate's model or archive was in production before, and was taken back."""
    for what, value, now in (
        ("model", candidate.model.sha256, present.record.model.sha256),
        ("archive", candidate.package.md5, present.record.package.md5),
    ):
        if value != now and (commit := went_back(present.commit, value)):
            raise ProjectError(
                f"the {what} of {candidate.title} was in production and commit {commit[:12]} of {BRANCH} took it back: "
                f"revert on {MAIN} what made it, or, to release it again all the same, `make deploy REDEPLOY=1`"
            )


def went_back(tip: str, value: str) -> str | None:
    """Return the commit of env/production that took `value` out of the record by going back to an earlier tree.

    None where there is no such commit. `value` is a digest that the record at `tip` does not hold; only its last
    appearance counts.
    """
    log = ("log", "--first-parent")
    removal = git.run(*log, "-1", "--format=%H", f"-S{value}", tip, "--", RECORD)
    if not removal:
        return None
    tree, *earlier = git.run(*log, "--format=%T", removal).splitlines()
    return removal if tree in earlier else None


def judged(settings: Params, candidate: Candidate, present: str | None) -> Verdict:
    """Return the gate's word on the candidate beside the release `present`. Raises ProjectError unless it accepts."""
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
