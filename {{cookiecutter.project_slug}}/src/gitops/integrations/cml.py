"""One comment on a pull request, made and edited by CML (https://cml.dev) where it is there, else in CML's way.

All that is known of CML is here, of its version 0.20.6: src/cml.js, src/watermark.js and src/drivers/github.js of
https://github.com/iterative/cml. It looks at the first page of comments only, and edits the last one there that has
its mark, whoever wrote it: a person who quotes the report would lose the comment. So it is asked only where it would
edit ours, and otherwise the API is called.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.integrations import github
from gitops.integrations.github import GitHub

#: Tells our comment from others that CML makes. CML would escape underscores, asterisks and brackets.
TITLE = "model report"

#: Comments that CML reads: GitHub's page where no size is asked for.
SEEN = 30

TIMEOUT = 120

#: Who comments with the token that GitHub Actions gives to a job.
ACTIONS = "github-actions[bot]"

MARK = re.compile(rf'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')


class CmlError(ProjectError):
    """CML ended with an error; it may have commented all the same."""


def mark(commit: str) -> str:
    """Return what CML puts at the end of a comment on `commit`."""
    return f'![](https://cml.dev/watermark.png#{commit} "CML watermark {TITLE}")'


def publish(repository: GitHub, number: int, text: str, commit: str) -> str:
    """Make the comment `text` of pull request `number` or edit it, and return its address. Raises GitHubError."""
    login = ACTIONS if os.environ.get("GITHUB_ACTIONS") else repository.get("/user")["login"]
    path = f"issues/{number}/comments"
    comments = repository.every(path)
    program = shutil.which("cml")
    if program and _choice(comments) == _own(comments, login):
        try:
            return _update(program, repository, number, text, commit)
        except CmlError as error:
            print(f"{error}; going on without it", file=sys.stderr)
            comments = repository.every(path)  # it may have commented all the same
    body = {"body": f"{text}\n\n{mark(commit)}"}
    for attempt in range(github.TRIES):
        present = _own(comments, login)
        try:
            if present:
                return str(repository.patch(f"issues/comments/{present['id']}", body)["html_url"])
            return str(repository.post(path, body)["html_url"])
        except github.Unanswered:
            if attempt == github.TRIES - 1:
                raise
        time.sleep(github.PAUSE * 2**attempt)
        comments = repository.every(path)
    raise AssertionError  # the last try has returned or raised


def _own(comments: list[dict[str, Any]], login: str) -> dict[str, Any] | None:
    """Return our comment: by the user whom the token belongs to, and ending in the mark."""
    for comment in comments:
        last = (comment["body"] or "").rstrip().rpartition("\n")[2]
        if comment["user"] and comment["user"]["login"] == login and MARK.fullmatch(last):
            return comment
    return None


def _choice(comments: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the comment that CML would edit, of all that the pull request has."""
    return next((comment for comment in reversed(comments[:SEEN]) if MARK.search(comment["body"] or "")), None)


def _update(program: str, repository: GitHub, number: int, text: str, commit: str) -> str:
    """Let CML edit its comment, or make one, and return the address that it prints. Raises CmlError."""
    with tempfile.TemporaryDirectory(prefix="cml-") as folder:
        file = Path(folder, "comment.md")
        file.write_text(text, encoding="utf-8")
        address = f"{repository.server}/{repository.repository}"
        options = ["--publish=false", f"--target=pr/{number}", f"--watermark-title={TITLE}", f"--repo={address}"]
        try:
            done = subprocess.run(
                [program, "comment", "update", *options, str(file)],
                env=_environment(repository, commit, folder),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CmlError(f"cml could not be run: {type(error).__name__}") from None
    if done.returncode:
        raise CmlError(f"cml ended with status {done.returncode}: {_last(done.stderr, repository.token)}")
    return _last(done.stdout, repository.token)


def _environment(repository: GitHub, commit: str, home: str) -> dict[str, str]:
    """Return what CML gets. It writes to the settings of git and to folders of the user's: they are others here."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CML_", "GITHUB_", "XDG_"))}
    return own | {
        "HOME": home,
        "GIT_CONFIG_GLOBAL": str(Path(home, "gitconfig")),
        "REPO_TOKEN": repository.token,
        "GITHUB_REPOSITORY": repository.repository,  # by which CML knows that the host is GitHub
        "GITHUB_SHA": commit,  # without it the mark has no commit, and CML does not know it again
        "ITERATIVE_DO_NOT_TRACK": "1",
    }


def _last(output: str, token: str) -> str:
    """Return the last line of an output, without what GitHub Actions would take for a command in its log."""
    line = (output.strip().splitlines() or ["nothing was said"])[-1]
    with suppress(ValueError, LookupError, TypeError):
        line = str(json.loads(line)["message"])  # an error is an object with all of the request and its connection
    return " ".join(line.split())[:300].replace(token, "***").replace("##[", "## [").removeprefix("::")
