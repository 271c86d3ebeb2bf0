"""`make comment`: post the report on its pull request, as one comment that each run edits.

It runs after CI, in a separate job that can write to the repository. The artifact with the report comes from the pull
request's code, which may be a stranger's. So this module reads two files of it as text, trusts GitHub's API and nothing
else, and disables everything in the report that does more than show text. Only the standard library is imported.
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
from gitops.core.console import echo
from gitops.integrations import cml, git, github
from gitops.integrations.github import GitHub
from gitops.rendering.markdown import defang, plain

#: GitHub refuses a comment of more than 65,536 characters.
LIMIT = 60_000

REPORT_BYTES = 1_000_000
NUMBER_BYTES = 20

#: Conclusions of jobs and steps that failed, and of runs that did not run anything.
FAILED = ("failure", "timed_out", "cancelled", "startup_failure")
NOT_RUN = ("action_required", "skipped")


@dataclass(frozen=True)
class Comment:
    """A comment for pull request `number`, about `commit`."""

    number: int
    commit: str
    text: str


def main() -> None:
    """Post the report and print the comment's address, or print why there is nothing to post."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifact", type=Path, default=Path(), help=f"folder with {REPORT}; default: the current one")
    parser.add_argument("--pull-request", type=int, metavar="NUMBER", help="where to post, outside GitHub Actions")
    arguments = parser.parse_args()
    repository = github.connect()
    comment: Comment | str
    if arguments.pull_request:
        comment = of_workspace(repository, arguments.artifact, arguments.pull_request)
    else:
        comment = of_run(repository, arguments.artifact)
    if isinstance(comment, Comment):
        echo(cml.publish(repository, comment.number, comment.text, comment.commit))
    else:
        echo(f"nothing is posted: {comment}")


def of_workspace(repository: GitHub, folder: Path, number: int) -> Comment:
    """Return the report in a person's workspace as a comment. Raises ProjectError."""
    report = read(folder, REPORT, REPORT_BYTES)
    if report is None:
        raise ProjectError(f"{folder / REPORT} is missing: run `make report` first")
    repository.get(f"pulls/{number}")  # fails for an issue, on which GitHub would accept a comment too
    commit = git.run("rev-parse", "HEAD")
    return Comment(number, commit, compose([f"Posted by hand, from a workspace at commit `{commit[:12]}`."], report))


def of_run(repository: GitHub, folder: Path) -> Comment | str:
    """Return the comment on the CI run of GitHub's event, or why there is none. Raises ProjectError."""
    ci_run = _ci_run()
    if ci_run["event"] != "pull_request":
        return "the run was not for a pull request"
    if ci_run["conclusion"] in NOT_RUN:
        return "nothing was run yet"
    number = find(repository, ci_run, read(folder, PULL_REQUEST, NUMBER_BYTES))
    if number is None:
        return "the pull request is closed or has a newer commit, whose own run reports"
    report = read(folder, REPORT, REPORT_BYTES)
    trusted = []
    if ci_run["conclusion"] != "success":
        trusted.append(banner(ci_run["conclusion"], repository.every(f"actions/runs/{ci_run['id']}/jobs", "jobs")))
    elif report is None:
        trusted.append("## ❌ No report")
    link = f"[Run {ci_run['id']}]({ci_run['html_url']}) of commit `{ci_run['head_sha'][:12]}`"
    if report is None:
        trusted.append(f"{link} left no report.")
    else:
        warning = "The pull request's own code wrote the following."
        trusted.append(f"{link}: its page has the artifact `report`, with plots. {warning}")
    return Comment(number, ci_run["head_sha"], compose(trusted, report or ""))


def find(repository: GitHub, ci_run: dict[str, Any], claimed: str | None) -> int | None:
    """Return the number of the open pull request whose newest commit the CI run was for, or None.

    GitHub's event names none for a fork. The number in the artifact only chooses between several pull requests of one
    branch. Raises ProjectError where it is not one of these.
    """
    fork = ci_run["head_repository"]
    if fork is None:  # deleted
        return None
    head = f"{fork['owner']['login']}:{ci_run['head_branch']}"
    matching = [
        pull["number"]
        for pull in repository.every("pulls", state="open", head=head)
        if pull["head"]["sha"] == ci_run["head_sha"]
        and (pull["head"]["repo"] or {}).get("full_name") == fork["full_name"]
        and pull["base"]["repo"]["full_name"] == repository.repository
    ]
    if not matching:
        return None
    numbers = ", ".join(map(str, matching))
    if claimed is None:
        if len(matching) > 1:
            raise ProjectError(
                f"pull requests {numbers} have the same commit, and {PULL_REQUEST}, which chooses one, is missing"
            )
        return int(matching[0])
    if not re.fullmatch(r"[0-9]+", claimed.strip(), re.ASCII) or int(claimed) not in matching:
        raise ProjectError(f"{PULL_REQUEST} in the artifact does not name {numbers}, which the run was for")
    return int(claimed)


def banner(conclusion: str, jobs: list[dict[str, Any]]) -> str:
    """Return which jobs of a run failed, and in which step; their names are untrusted."""
    lines = []
    for job in jobs:
        if job["conclusion"] in FAILED:
            step = next((step["name"] for step in job["steps"] or [] if step["conclusion"] in FAILED), None)
            at = f", in step {defang(plain(step))}" if step else ""
            lines.append(f"- [{defang(plain(job['name']))}]({job['html_url']}){at}")
    more = [f"- and {len(lines) - 20} more"] if len(lines) > 20 else []
    return f"## ❌ The run's conclusion: {conclusion.replace('_', ' ')}\n\n" + "\n".join(lines[:20] + more)


def compose(trusted: list[str], report: str) -> str:
    """Return the comment. The trusted text is first: a report could hide what follows it, with an open code block."""
    shown = defang(report).strip("\n")
    room = LIMIT - sum(len(part) + 2 for part in [*trusted, cml.watermark("0" * 40)])
    if len(shown) > room:
        trusted = [
            *trusted,
            "**The report is cut, as it is too long for a comment: the run's artifact has the whole.**",
        ]
        room -= len(trusted[-1]) + 2
        shown = shown[:room].rpartition("\n")[0] or shown[:room]
    return "\n\n".join(filter(None, [*trusted, shown]))


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


def _ci_run() -> dict[str, Any]:
    """Return the CI run in GitHub's event. Raises ProjectError where no CI run started this."""
    path = os.environ.get("GITHUB_EVENT_PATH")
    event = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    if "workflow_run" not in event:
        raise ProjectError("this was not started by a CI run (GITHUB_EVENT_PATH): give --pull-request NUMBER")
    found: dict[str, Any] = event["workflow_run"]
    return found


if __name__ == "__main__":
    run(main)
