"""`make comment`: what a pull request is told: CI's report, as one comment that each run edits, and its release.

GitHub's event says which. At the end of a CI run, and where a pull request is opened after it: the report
(ci_comment.py). On main, after a release: where the change is now (release_comment.py). With --pull-request, by hand:
the report in a folder. It runs where a token can write. So it runs no code of the pull request, trusts GitHub's API and
nothing else, and imports only the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gitops.core.artifacts import REPORT, ProjectError, run
from gitops.core.console import echo
from gitops.integrations import cml, git, github
from gitops.integrations.cml import Comment
from gitops.integrations.github import GitHub
from gitops.reporting import ci_comment, release_comment


def main() -> None:
    """Post what there is to say and print the comments' addresses, or print why there is nothing to post."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifact", type=Path, default=Path(), help=f"folder with {REPORT}; default: the current one")
    parser.add_argument("--pull-request", type=int, metavar="NUMBER", help="where to post, outside GitHub Actions")
    arguments = parser.parse_args()
    repository = github.connect()
    if arguments.pull_request:
        found: list[Comment] | str = [of_workspace(repository, arguments.artifact, arguments.pull_request)]
    else:
        found = of_event(repository)
    if isinstance(found, str):
        echo(f"nothing is posted: {found}")
        return
    for comment in found:
        echo(cml.publish(repository, comment) or f"pull request {comment.number} has this comment already")


def of_event(repository: GitHub) -> list[Comment] | str:
    """Return the comments that GitHub's event asks for, or why there is none. Raises ProjectError."""
    path, name = os.environ.get("GITHUB_EVENT_PATH"), os.environ.get("GITHUB_EVENT_NAME")
    event: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    if name == "workflow_run":
        return ci_comment.of_run(repository, event["workflow_run"])
    if name == "pull_request":
        return ci_comment.of_pull_request(repository, event["pull_request"])
    if name in ("push", "workflow_dispatch") and os.environ.get("GITHUB_REF") == f"refs/heads/{git.MAIN}":
        return release_comment.of_head(repository)
    told = f"GITHUB_EVENT_NAME is {name}, which" if name else "outside a workflow GitHub"
    raise ProjectError(f"{told} asks for no comment: give --pull-request NUMBER")


def of_workspace(repository: GitHub, folder: Path, number: int) -> Comment:
    """Return the report in a person's workspace as a comment. Raises ProjectError."""
    report = read(folder, REPORT, ci_comment.REPORT_BYTES)
    if report is None:
        raise ProjectError(f"{folder / REPORT} is missing: run `make report` first")
    repository.get(f"pulls/{number}")  # fails for an issue, on which GitHub would accept a comment too
    commit = git.run("rev-parse", "HEAD")
    intro = f"Posted by hand, from a workspace at commit `{commit[:12]}`."
    return Comment(number, commit, ci_comment.compose([intro], report))


def read(folder: Path, name: Path, limit: int) -> str | None:
    """Return the text of an untrusted file, or None where there is none.

    Raises ProjectError for anything but a regular file of at most `limit` bytes, and for symbolic links on the way.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe would wait for a writer
    with ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            for part in name.parts:
                descriptor = os.open(part, flags, dir_fd=descriptor)
                stack.callback(os.close, descriptor)
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                raise ProjectError(f"{folder / name}: a regular file of at most {limit:,} bytes is needed")
            return os.read(descriptor, limit).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProjectError(f"{folder / name} cannot be read: {error.strerror}; is it a symbolic link?") from None


if __name__ == "__main__":
    run(main)
