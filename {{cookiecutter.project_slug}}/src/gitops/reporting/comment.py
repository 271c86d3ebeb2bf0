"""`make comment`: the report on its pull request, as one comment that each run edits.

It runs after CI, in a job of its own that can write to the repository; the report and all else in the artifact come
from the pull request's code, a stranger's perhaps. So this reads two files as text, believes what GitHub's API says and
nothing else, and takes from the report whatever does more than show. Only the standard library is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.core.artifacts import PULL_REQUEST, REPORT, ProjectError, run
from gitops.integrations import cml, git, github
from gitops.integrations.github import GitHub
from gitops.rendering.markdown import defang, plain

#: GitHub refuses a comment of more than 65,536 characters.
LIMIT = 60_000

REPORT_BYTES = 1_000_000
NUMBER_BYTES = 20

#: Conclusions of jobs and steps that failed; of runs in which nothing was run.
FAILED = ("failure", "timed_out", "cancelled", "startup_failure")
NOT_RUN = ("action_required", "skipped")


@dataclass(frozen=True)
class Comment:
    """What is posted on pull request `number`, about `commit`."""

    number: int
    commit: str
    text: str


def main() -> None:
    """Post the report and print the comment's address, or say why there is nothing to post."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifact", type=Path, default=Path(), help=f"folder with {REPORT}, this one by default")
    parser.add_argument("--pull-request", type=int, metavar="NUMBER", help="outside GitHub Actions: where to post")
    arguments = parser.parse_args()
    repository = github.connect()
    comment: Comment | str
    if arguments.pull_request:
        comment = of_workspace(repository, arguments.artifact, arguments.pull_request)
    else:
        comment = of_run(repository, arguments.artifact)
    if isinstance(comment, Comment):
        print(cml.publish(repository, comment.number, comment.text, comment.commit))
    else:
        print(f"nothing is posted: {comment}")


def of_workspace(repository: GitHub, folder: Path, number: int) -> Comment:
    """Return a person's own report as a comment. Raises ProjectError."""
    report = read(folder, REPORT, REPORT_BYTES)
    if report is None:
        raise ProjectError(f"{folder / REPORT} is missing: run `make report` first")
    repository.get(f"pulls/{number}")  # comments go on issues too
    commit = git.run("rev-parse", "HEAD")
    return Comment(number, commit, compose([f"Posted by hand, from a workspace at commit `{commit[:12]}`."], report))


def of_run(repository: GitHub, folder: Path) -> Comment | str:
    """Return the comment on the CI run that GitHub's event tells of, or why there is none. Raises ProjectError."""
    ended = _event()
    if ended["event"] != "pull_request":
        return "the run was not for a pull request"
    if ended["conclusion"] in NOT_RUN:
        return "nothing has been run yet"
    number = find(repository, ended, read(folder, PULL_REQUEST, NUMBER_BYTES))
    if number is None:
        return "the pull request is closed or has a newer commit, whose run reports"
    report = read(folder, REPORT, REPORT_BYTES)
    trusted = []
    if ended["conclusion"] != "success":
        trusted.append(banner(ended["conclusion"], repository.every(f"actions/runs/{ended['id']}/jobs", "jobs")))
    elif report is None:
        trusted.append("## ❌ No report")
    link = f"[Run {ended['id']}]({ended['html_url']}) of commit `{ended['head_sha'][:12]}`"
    if report is None:
        trusted.append(f"{link} has left no report.")
    else:
        said = "What follows was written by the pull request's own code."
        trusted.append(f"{link}: its page holds the artifact `report`, with plots. {said}")
    return Comment(number, ended["head_sha"], compose(trusted, report or ""))


def find(repository: GitHub, ended: dict[str, Any], claimed: str | None) -> int | None:
    """Return the number of the open pull request whose newest commit a run was for, or None.

    GitHub's event names none for a fork. The artifact's claim only decides between several from one branch. Raises
    ProjectError where it names another one.
    """
    fork = ended["head_repository"]
    if fork is None:  # deleted
        return None
    head = f"{fork['owner']['login']}:{ended['head_branch']}"
    fitting = [
        pull["number"]
        for pull in repository.every("pulls", state="open", head=head)
        if pull["head"]["sha"] == ended["head_sha"]
        and (pull["head"]["repo"] or {}).get("full_name") == fork["full_name"]
        and pull["base"]["repo"]["full_name"] == repository.repository
    ]
    if not fitting:
        return None
    told = ", ".join(map(str, fitting))
    if claimed is None:
        if len(fitting) > 1:
            raise ProjectError(f"pull requests {told} have the same commit, and there is no {PULL_REQUEST}: which one?")
        return int(fitting[0])
    if not re.fullmatch(r"[0-9]+", claimed.strip(), re.ASCII) or int(claimed) not in fitting:
        raise ProjectError(f"{PULL_REQUEST} in the artifact does not hold {told}, which the run was for")
    return int(claimed)


def banner(conclusion: str, jobs: list[dict[str, Any]]) -> str:
    """Return which jobs of a run failed, and where; a stranger may have named them."""
    lines = []
    for job in jobs:
        if job["conclusion"] in FAILED:
            step = next((step["name"] for step in job["steps"] or [] if step["conclusion"] in FAILED), None)
            at = f", in step {defang(plain(step))}" if step else ""
            lines.append(f"- [{defang(plain(job['name']))}]({job['html_url']}){at}")
    more = [f"- and {len(lines) - 20} more"] if len(lines) > 20 else []
    return f"## ❌ The run ended in: {conclusion.replace('_', ' ')}\n\n" + "\n".join(lines[:20] + more)


def compose(trusted: list[str], report: str) -> str:
    """Return the comment. What is ours stands first: a report can swallow what follows it, with an open code block."""
    shown = defang(report).strip("\n")
    room = LIMIT - sum(len(part) + 2 for part in [*trusted, cml.mark("0" * 40)])
    if len(shown) > room:
        trusted = [*trusted, "**The report is too long for a comment and cut: the run's artifact has all of it.**"]
        room -= len(trusted[-1]) + 2
        shown = shown[:room].rpartition("\n")[0] or shown[:room]
    return "\n\n".join(filter(None, [*trusted, shown]))


def read(folder: Path, name: Path, limit: int) -> str | None:
    """Return the text of a file that a stranger may have made, or None where there is none.

    Raises ProjectError for what is no regular file, lies behind a symbolic link or is larger than `limit` bytes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for who writes to it
    with ExitStack() as stack:
        try:
            place = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, place)
            for part in name.parts:
                place = os.open(part, flags, dir_fd=place)
                stack.callback(os.close, place)
            found = os.fstat(place)
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                raise ProjectError(f"{folder / name}: a regular file of at most {limit:,} bytes is needed")
            return os.read(place, limit).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProjectError(f"{folder / name} cannot be read: {error.strerror}; is it a symbolic link?") from None


def _event() -> dict[str, Any]:
    """Return what GitHub tells of the CI run that has ended. Raises ProjectError."""
    path = os.environ.get("GITHUB_EVENT_PATH")
    event = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    if "workflow_run" not in event:
        raise ProjectError("no CI run has started this (GITHUB_EVENT_PATH): say where to post, --pull-request NUMBER")
    ended: dict[str, Any] = event["workflow_run"]
    return ended


if __name__ == "__main__":
    run(main)
