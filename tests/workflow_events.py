"""What GitHub sends: the events of one repository, each as its documentation says it is.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows and, for what
each holds, https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflow_hub import Hub
    from workflow_runner import Run

#: Who the job's own token stands for, and who updates versions.
ACTIONS, DEPENDABOT = "github-actions[bot]", "dependabot[bot]"


@dataclass(frozen=True)
class Event:
    """What starts workflows. `head` is the commit that shows its checks, where that is not the one that is run."""

    name: str
    payload: dict[str, Any]
    sha: str
    ref: str = "refs/heads/main"
    actor: str = "owner"
    inputs: dict[str, Any] = field(default_factory=dict)
    fork: bool = False
    head: str = ""

    @property
    def secretless(self) -> bool:
        """Whether GitHub gives its runs no secrets of Actions: a fork's, and those that Dependabot has caused."""
        restricted = self.actor == DEPENDABOT and self.name in ("push", "pull_request")
        return self.fork or restricted

    @property
    def checked(self) -> str:
        """The commit on whose page the checks of its runs stand."""
        return self.head or self.sha


def push(hub: Hub, branch: str = "main", sha: str | None = None, actor: str = "owner") -> Event:
    """A push to a branch, whose tip it made `sha`."""
    ref = f"refs/heads/{branch}"
    sha = sha or hub.git("rev-parse", ref)
    return Event("push", {"ref": ref, "after": sha}, sha, ref, actor)


def pull_request(
    hub: Hub, number: int, branch: str, fork: tuple[str, Path] | None = None, action: str = "opened", actor: str = ""
) -> Event:
    """A pull request from a branch of this repository, or of a fork by name and path; the merge lies on origin."""
    name, path = fork or (hub.repository, hub.origin)
    ref = f"refs/pull/{number}/merge"
    with tempfile.TemporaryDirectory() as clone:
        hub.git("clone", "--quiet", ".", clone)
        hub.git("fetch", "--quiet", str(path), branch, at=clone)
        hub.git("merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", "FETCH_HEAD", at=clone)
        hub.git("push", "--quiet", "--force", "origin", f"HEAD:{ref}", at=clone)
    actor = actor or name.partition("/")[0]
    head = {"ref": branch, "sha": hub.git("rev-parse", f"{ref}^2"), "repo": {"full_name": name}}
    base = {"ref": "main", "repo": {"full_name": hub.repository}}
    pull = {"number": number, "user": {"login": actor}, "head": head, "base": base}
    hub.pulls[number] = pull
    payload = {"action": action, "number": number, "pull_request": pull}
    return Event(
        "pull_request", payload, hub.git("rev-parse", ref), ref, actor, fork=fork is not None, head=str(head["sha"])
    )


def merge_group(hub: Hub, number: int) -> Event:
    """The merge queue asks for the checks of what main would be with a pull request; its branch lies on origin."""
    head = hub.pulls[number]["head"]
    base = hub.git("rev-parse", "main")
    branch = f"gh-readonly-queue/main/pr-{number}-{base}"
    with tempfile.TemporaryDirectory() as clone:
        hub.git("clone", "--quiet", ".", clone)
        hub.git("fetch", "--quiet", "origin", f"refs/pull/{number}/merge", at=clone)
        hub.git("merge", "--quiet", "--no-ff", "-m", f"Merge pull request #{number}", head["sha"], at=clone)
        hub.git("push", "--quiet", "origin", f"HEAD:{branch}", at=clone)
    sha = hub.git("rev-parse", branch)
    group = {"head_ref": f"refs/heads/{branch}", "head_sha": sha, "base_ref": "refs/heads/main", "base_sha": base}
    payload = {"action": "checks_requested", "merge_group": group}
    return Event("merge_group", payload, sha, f"refs/heads/{branch}", "github-merge-queue[bot]")


def dispatch(
    hub: Hub, file: str, ref: str = "main", inputs: dict[str, Any] | None = None, actor: str = "owner"
) -> Event:
    """A person's click on "Run workflow", or a call of the API: `hub.dispatch` asks whether it may."""
    described = hub.workflow(file, f"refs/heads/{ref}")[True]["workflow_dispatch"] or {}
    given = {name: value.get("default", "") for name, value in described.get("inputs", {}).items()} | (inputs or {})
    payload = {"inputs": given, "ref": f"refs/heads/{ref}", "workflow": f".github/workflows/{file}"}
    return Event("workflow_dispatch", payload, hub.git("rev-parse", ref), f"refs/heads/{ref}", actor, given)


def of_main(hub: Hub, name: str, payload: dict[str, Any] | None = None) -> Event:
    """An event that runs on main whatever it is about: a schedule, or a dispatch from outside."""
    return Event(name, payload or {}, hub.git("rev-parse", "main"))


def completed(hub: Hub, run: Run) -> Event:
    """The end of a run, which workflows of main hear of.

    `pull_requests` are the open ones of this repository whose head is the run's branch or commit, whatever started it:
    https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run
    """
    event = run.event
    here = {"ref": event.ref.removeprefix("refs/heads/"), "sha": event.sha, "repo": {"full_name": hub.repository}}
    head: dict[str, Any] = event.payload.get("pull_request", {}).get("head", here)
    name = head["repo"]["full_name"]
    own = [pull for pull in hub.pulls.values() if pull["head"]["repo"]["full_name"] == name == hub.repository]
    told = {
        "id": run.id,
        "name": run.workflow,
        "event": event.name,
        "conclusion": run.conclusion,
        "html_url": f"{hub.url}/{hub.repository}/actions/runs/{run.id}",
        "head_branch": head["ref"],
        "head_sha": head["sha"],
        "head_repository": {"full_name": name, "owner": {"login": name.partition("/")[0]}},
        "pull_requests": [
            {"number": pull["number"], "head": {key: pull["head"][key] for key in ("ref", "sha")}}
            for pull in own
            if pull["head"]["ref"] == head["ref"] or pull["head"]["sha"] == head["sha"]
        ],
    }
    return Event("workflow_run", {"action": "completed", "workflow_run": told}, hub.git("rev-parse", "main"))
