"""The command `git`: it acts on the repository of the working directory, in a hook of Git's too, and no setting of the
person or the machine changes what it reads or does.
"""

from __future__ import annotations

import os
import shlex
import subprocess

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError

#: The first question to a repository: where it is.
WHERE = ("rev-parse", "--git-dir")

#: Variables by which Git tells its hooks which repository and index they are run for. They do not hold for what a hook
#: starts here: another working tree, or the index that a partial commit has set up. Those of GIT_CONFIG are kept.
HOOK_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)

#: Settings that stand above those of the person and the machine. Hooks are for what people commit and push.
SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "log.diffMerges": "separate",
    "log.follow": "false",
    "log.showRoot": "true",
    "log.showSignature": "false",
    "push.followTags": "false",
    "status.showUntrackedFiles": "normal",
}


class GitError(ProjectError):
    """git failed; the message holds its error output."""


def environment(**variables: str) -> dict[str, str]:
    """Return this process's variables, without those of a hook of Git's and with `variables`, for what calls git."""
    return {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES} | variables


def start(*arguments: str, stdin: bytes | None = None, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run `git ARGUMENTS` with additional environment variables and return how it ended.

    Raises GitError where there is no git, and for a repository that Git does not trust.
    """
    settings = [option for item in SETTINGS.items() for option in ("-c", "=".join(item))]
    command = ["git", *settings, *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment(**variables))
    except OSError as error:
        raise GitError(f"git cannot be run ({error.strerror}): is it installed, and on PATH?") from None
    if done.returncode == 128:
        _require_trust()
    return done


def _require_trust() -> None:
    """Raise GitError for a repository that Git refuses to read because it belongs to another user."""

    def top(*options: str) -> subprocess.CompletedProcess[bytes]:
        command = ["git", *options, "rev-parse", "--show-toplevel"]
        return subprocess.run(command, capture_output=True, check=False, env=environment())

    if top().returncode and (trusting := top("-c", "safe.directory=*")).returncode == 0:
        folder = trusting.stdout.decode(errors="replace").rstrip("\n")
        raise GitError(
            f"{folder} belongs to another user, so Git does not read it: if you trust its files, "
            f"`git config --global --add safe.directory {shlex.quote(folder)}`"
        )


def main() -> None:
    """Fail where Git does not trust the repository; other programs do not say that."""
    start(*WHERE)


if __name__ == "__main__":
    artifacts.run(main)
