"""One comment of a kind on a pull request, by CML (https://cml.dev) where it is installed, else made as CML makes it.

This module holds everything that depends on CML, version 0.20.6: src/cml.js, src/watermark.js and
src/drivers/github.js of https://github.com/iterative/cml. CML reads only the first page of comments, and edits the last
one there with its watermark, whoever wrote it: a person who quotes the report would lose that comment. So CML is used
only where it would edit our own comment, and otherwise the API is called.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.core.console import echo, one_line
from gitops.integrations import github
from gitops.integrations.github import GitHub

#: Distinguish our comments from others made with CML, and our two kinds: the report, and where the change was released,
#: which the API alone posts. CML would escape underscores, asterisks and brackets.
TITLE, RELEASE = "model report", "release"

#: Comments that CML reads: GitHub's default page.
PAGE = 30

TIMEOUT = 120  # seconds

#: Login of comments that are made with a GitHub Actions job's token.
ACTIONS = "github-actions[bot]"

MARK = r'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {}"\)'
WATERMARK = re.compile(MARK.format(TITLE))


@dataclass(frozen=True)
class Comment:
    """A comment of a kind (`title`) for pull request `number`, about `commit`; with `once` it is never edited."""

    number: int
    commit: str
    text: str
    title: str = TITLE
    once: bool = False


class CmlError(ProjectError):
    """CML failed; it may have commented all the same."""


def watermark(commit: str, title: str = TITLE) -> str:
    """Return the watermark that CML puts at the end of a comment on `commit`."""
    return f'![](https://cml.dev/watermark.png#{commit} "CML watermark {title}")'


def publish(repository: GitHub, comment: Comment) -> str | None:
    """Create or edit a comment and return its address; None where it is there and stays. Raises GitHubError."""
    text, commit, title = comment.text, comment.commit, comment.title
    login = ACTIONS if os.environ.get("GITHUB_ACTIONS") else repository.get("/user")["login"]
    path = f"issues/{comment.number}/comments"
    comments = repository.every(path)
    if comment.once and _own(comments, login, title):
        return None
    program = shutil.which("cml") if title == TITLE else None
    if program and _choice(comments) == _own(comments, login, title):
        try:
            return _update(program, repository, comment)
        except CmlError as error:
            echo(f"{error}; calling the API instead", error=True)
            comments = repository.every(path)  # CML may have commented all the same
    body = {"body": f"{text}\n\n{watermark(commit, title)}"}
    for attempt in range(github.TRIES):
        present = _own(comments, login, title)
        try:
            if present:
                return str(repository.patch(f"issues/comments/{present['id']}", body)["html_url"])
            return str(repository.post(path, body)["html_url"])
        except github.Unanswered:
            if attempt == github.TRIES - 1:
                raise
        time.sleep(github.PAUSE * 2**attempt)
        comments = repository.every(path)
    raise AssertionError  # the last attempt returned or raised


def _own(comments: list[dict[str, Any]], login: str, title: str) -> dict[str, Any] | None:
    """Return our comment of a kind: by the token's own user, and ending in the watermark."""
    for entry in comments:
        last = (entry["body"] or "").rstrip().rpartition("\n")[2]
        if entry["user"] and entry["user"]["login"] == login and re.fullmatch(MARK.format(title), last):
            return entry
    return None


def _choice(comments: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the comment that CML would edit, given all those of the pull request."""
    return next((comment for comment in reversed(comments[:PAGE]) if WATERMARK.search(comment["body"] or "")), None)


def _update(program: str, repository: GitHub, comment: Comment) -> str:
    """Let CML edit or create the comment, and return the address that it prints. Raises CmlError."""
    with tempfile.TemporaryDirectory(prefix="cml-") as folder:
        file = Path(folder, "comment.md")
        file.write_text(comment.text, encoding="utf-8")
        address = f"{repository.server}/{repository.repository}"
        target = f"--target=pr/{comment.number}"
        options = ["--publish=false", target, f"--watermark-title={TITLE}", f"--repo={address}"]
        try:
            done = subprocess.run(
                [program, "comment", "update", *options, str(file)],
                env=_environment(repository, comment.commit, folder),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CmlError(f"cml could not be run: {type(error).__name__}") from None
    if done.returncode:
        raise CmlError(f"cml failed with exit status {done.returncode}: {_last_line(done.stderr, repository.token)}")
    return _last_line(done.stdout, repository.token)


def _environment(repository: GitHub, commit: str, home: str) -> dict[str, str]:
    """Return CML's environment variables, with a temporary home: CML writes to git's settings and other user files."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CML_", "GITHUB_", "XDG_"))}
    return inherited | {
        "HOME": home,
        "GIT_CONFIG_GLOBAL": str(Path(home, "gitconfig")),
        "REPO_TOKEN": repository.token,
        "GITHUB_REPOSITORY": repository.repository,  # tells CML that the host is GitHub
        "GITHUB_SHA": commit,  # without it the watermark has no commit, and CML does not recognise it
        "ITERATIVE_DO_NOT_TRACK": "1",
    }


def _last_line(output: str, token: str) -> str:
    """Return the last line of CML's output, without the token."""
    line = (output.strip().splitlines() or ["no output"])[-1]
    with suppress(ValueError, LookupError, TypeError):
        line = str(json.loads(line)["message"])  # an error is logged as an object with the whole request
    return one_line(line.replace(token, "***"), 300)
