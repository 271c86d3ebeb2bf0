"""The comment on a CI run: the report that its artifact holds, what failed, and where its minutes went.

The artifact comes from the pull request's code, which may be a stranger's. So one file of it is read as text, and all
in it that does more than show text is disabled. What the comment says besides comes from GitHub's API.
"""

from __future__ import annotations

from typing import Any

from gitops.core.artifacts import REPORT
from gitops.integrations import cml, github_artifacts, github_runs
from gitops.integrations.cml import Comment
from gitops.integrations.github import GitHub
from gitops.rendering.markdown import defang
from gitops.reporting import run_jobs

#: GitHub refuses a comment of more than 65,536 characters.
LIMIT = 60_000

#: The artifact of a CI run, and bytes of the report in it at most.
ARTIFACT, REPORT_BYTES = "report", 1_000_000


def of_pull_request(repository: GitHub, pull: dict[str, Any]) -> list[Comment] | str:
    """Return the comments on the CI run that had ended before a pull request was opened, or why there is none."""
    head = pull["head"]
    if (head["repo"] or {}).get("full_name") != repository.repository:
        return "a fork's pull request has a CI run of its own, which reports when it ends"
    ci_run = github_runs.newest(repository, head["ref"], head["sha"])
    if ci_run is None:
        return f"CI has not run for commit {head['sha'][:12]}"
    if ci_run["status"] != "completed":
        return f"run {ci_run['id']} of CI has not ended, and reports when it does"
    return of_run(repository, ci_run)


def of_run(repository: GitHub, ci_run: dict[str, Any]) -> list[Comment] | str:
    """Return the comments on a CI run that has ended, or why there is none. Raises ProjectError."""
    event, conclusion, source = ci_run["event"], ci_run["conclusion"], ci_run["head_repository"]
    if conclusion in github_runs.NOT_RUN:
        return f"the run's conclusion is {conclusion.replace('_', ' ')}: it has no result"
    own = source is not None and source["full_name"] == repository.repository
    if source is None or event not in (github_runs.EVENTS if own else ("pull_request",)):
        return "the run was not for a branch, or for a fork's pull request"
    numbers = find(repository, ci_run)
    if not numbers:
        return "no open pull request has this commit as its newest"
    try:
        found = github_artifacts.read(repository, int(ci_run["id"]), ARTIFACT, {REPORT.as_posix(): REPORT_BYTES})
    except github_artifacts.Expired as error:
        return f"{error}: run CI again"
    report = found.get(REPORT.as_posix())
    jobs = github_runs.jobs(repository, ci_run)
    text = compose(_trusted(ci_run, jobs, report is not None), (report or b"").decode("utf-8", errors="replace"))
    return [Comment(number, ci_run["head_sha"], text) for number in numbers]


def find(repository: GitHub, ci_run: dict[str, Any]) -> list[int]:
    """Return the open pull requests whose newest commit the run was for: several where their bases differ.

    GitHub's event names none for a fork, so they are asked for by branch, repository and commit.
    """
    source = ci_run["head_repository"]
    head = f"{source['owner']['login']}:{ci_run['head_branch']}"
    return [
        int(pull["number"])
        for pull in repository.every("pulls", state="open", head=head)
        if pull["head"]["sha"] == ci_run["head_sha"]
        and (pull["head"]["repo"] or {}).get("full_name") == source["full_name"]
        and pull["base"]["repo"]["full_name"] == repository.repository
    ]


def _trusted(ci_run: dict[str, Any], jobs: list[dict[str, Any]], reported: bool) -> list[str]:
    """Return what the comment says before the report."""
    parts = []
    if ci_run["conclusion"] != "success":
        parts.append(run_jobs.failures(ci_run["conclusion"], jobs))
    elif not reported:
        parts.append("## ❌ No report")
    link = f"[Run {ci_run['id']}]({ci_run['html_url']}) of commit `{ci_run['head_sha'][:12]}`"
    end = f": its page has the artifact `{ARTIFACT}`, with plots." if reported else " left no report."
    parts.append(link + end)
    parts.append(run_jobs.minutes(jobs))
    if reported:
        parts.append("The pull request's own code wrote the following.")
    return parts


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
