"""Go back to the release before (`make rollback`): one commit on env/production with exactly that release's tree.

Run again, it goes one release further back. Nothing is built or judged anew: that release ran before. main stays as it
is; `make deploy` refuses what was taken back until main makes something else, or is told to release it all the same.
With `--environment staging` it is the newest release on env/staging that goes.
"""

from __future__ import annotations

import argparse

from gitops.core.artifacts import ProjectError, run
from gitops.integrations import git, kustomize
from gitops.integrations.kustomize import PRODUCTION, STAGING
from gitops.releases import release
from gitops.releases.release import MAIN, Production


def main() -> None:
    """Roll back by one release, or say why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_environment_option(parser, PRODUCTION, "which one to roll back")
    rollback(parser.parse_args().environment)


def rollback(environment: str = PRODUCTION) -> str | None:
    """Put the previous release back and return the new commit, or None where another rollback has just done so.

    Raises ProjectError where there is nothing to go back to, and where a new release comes in between: it is not what
    the caller wanted to take back.
    """
    if not git.has_remote():
        raise ProjectError(f"there is no remote named {git.REMOTE}, so nothing was released from here")
    branch = release.branch(environment)
    unwanted: Production | None = None
    target = ""

    def make(present: Production | None) -> tuple[str, str] | None:
        nonlocal unwanted, target
        if present is None:
            raise ProjectError(f"{branch} holds no release: nothing was ever released to {environment}")
        if unwanted and present.commit != unwanted.commit:
            if git.tree(present.commit) == git.tree(target):
                print(f"Another rollback came first: {environment} runs {present.record.title} again.")
                return None
            raise ProjectError(f"{present.record.title} was released meanwhile: roll back again if that is wanted too")
        if present.record.previous is None:
            raise ProjectError(f"{present.record.title} is the first release: there is none to go back to")
        unwanted, target = present, present.record.previous
        return git.tree(target), message(present, target)

    commit = release.publish(environment, make)
    if commit and unwanted:
        back = release.read(commit)
        print(f"Took back {unwanted.record.title}: {environment} runs {back.title} again, {back.image}.")
        print(f"Commit {commit[:12]} of {branch}; {MAIN} still holds what was taken back, revert it there too.")
        if environment == STAGING:
            print("If it is proposed for production: `make promote`, or GitHub's workflow Promote, takes that back.")
    return commit


def message(unwanted: Production, target: str) -> str:
    """Return the commit message: like that of `git revert`, with trailers that name what went."""
    record, back = unwanted.record, release.read(target)
    text = f'Revert "Release {record.title}"\n\nThis goes back to {back.title} of commit {target}.\n\n'
    return text + "".join(
        f"Rolled-back-{what}: {value}\n"
        for what, value, now in (
            ("model", record.model.sha256, back.model.sha256),
            ("package", record.package.md5, back.package.md5),
        )
        if value != now
    )


if __name__ == "__main__":
    run(main)
