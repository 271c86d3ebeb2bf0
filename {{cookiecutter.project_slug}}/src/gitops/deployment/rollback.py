"""Restore the previous release (`make rollback`): one commit on env/production with exactly that release's tree.

Run again, it goes one release further back. Nothing is built, and no gate runs: that release was deployed before. main
stays as it is. What was rolled back, and all that descends from it, is not released again until main undoes it or
REDEPLOY=1 is set (gitops/releases/holds.py). `--environment staging`, or ENVIRONMENT=staging, rolls back env/staging.
"""

from __future__ import annotations

import argparse
import os

from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo, one_line
from gitops.integrations import git, kustomize
from gitops.integrations.kustomize import PRODUCTION, STAGING
from gitops.releases import holds, release
from gitops.releases.record import Deployed
from gitops.releases.release import MAIN


def main() -> None:
    """Roll back by one release, or print why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_environment_option(parser, None, f"which one to roll back (or ENVIRONMENT; {PRODUCTION} by default)")
    environment = parser.parse_args().environment or os.environ.get("ENVIRONMENT") or PRODUCTION
    if environment not in (known := kustomize.environments()):
        raise ProjectError(f"ENVIRONMENT is {one_line(environment, 60)!r}: {' or '.join(known)} is needed")
    rollback(environment)


def rollback(environment: str = PRODUCTION) -> str | None:
    """Restore the previous release and return the new commit; None where another rollback has just done the same.

    Raises ProjectError where there is no previous release, and where a new release comes in between, which is not the
    one that the caller wanted to roll back.
    """
    if not git.has_remote():
        raise ProjectError(f"there is no remote named {git.REMOTE}, so nothing was released from here")
    branch = release.branch(environment)
    unwanted: Deployed | None = None
    target = ""

    def make(present: Deployed | None) -> tuple[str, str] | None:
        nonlocal unwanted, target
        if present is None:
            raise ProjectError(f"{branch} holds no release: nothing was ever released to {environment}")
        if unwanted and present.commit != unwanted.commit:
            if git.tree(present.commit) == git.tree(target):
                echo(f"Another rollback came first: {environment} runs {present.record.title} again.")
                return None
            raise ProjectError(f"{present.record.title} was released meanwhile: run this again to roll that back too")
        if present.record.previous is None:
            raise ProjectError(f"{present.record.title} is the first release: there is none to go back to")
        unwanted, target = present, present.record.previous
        return git.tree(target), message(present, target)

    commit = release.publish(environment, make)
    if commit and unwanted:
        back = release.read(commit)
        echo(f"Rolled back {unwanted.record.title}: {environment} runs {back.title} again, {back.image}.")
        undo = holds.how_to_undo(back.commit, unwanted.record.commit)
        echo(f"Commit {commit[:12]} of {branch}.")
        if undo:
            echo(f"{MAIN} still has the change. It is not released again until {MAIN} undoes it ({undo})")
            echo("or REDEPLOY=1 is set.")
        if environment == STAGING:
            echo("If it is proposed for production: `make promote` or the workflow Promote updates that proposal.")
    return commit


def message(unwanted: Deployed, target: str) -> str:
    """Return the commit message: like that of `git revert`, with trailers that name what was rolled back."""
    record, back = unwanted.record, release.read(target)
    text = f'Revert "Release {record.title}"\n\nThis goes back to {back.title} of commit {target}.\n\n'
    text += f"Rolled-back-commit: {record.commit}\nBack-to-commit: {back.commit}\n"
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
