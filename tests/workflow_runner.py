"""Runs the workflows of a generated repository as GitHub Actions would, on this machine: `run`, and `deliver` with all
that comes of it.

The steps are those of the workflow at the event's commit, and run in a fresh clone of the hub's bare repository. What
these workflows use is known here and nothing more: another key, context, function or action is an error, so that a
workflow that changes does not go untested. Actions have stand-ins in workflow_actions.py and workflow_images.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from workflow_events import Event, completed
from workflow_expressions import UnknownError, render
from workflow_files import needs
from workflow_hub import Hub
from workflow_job import JobRun


@dataclass
class Run:
    """One run of a workflow. `state` is pending, running, cancelled, or ended."""

    hub: Hub
    id: int
    file: str
    event: Event
    content: dict[Any, Any]
    concurrency: dict[str, Any]
    attempt: int = 1
    state: str = "running"
    jobs: dict[str, JobRun] = field(default_factory=dict)
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # actions, with their inputs
    billed: int = 0  # minutes of GitHub's machines, all attempts together: each job that ran, rounded up

    @property
    def workflow(self) -> str:
        return str(self.content["name"])

    @property
    def conclusion(self) -> str:
        results = {job.result for job in self.jobs.values()}
        for worst in ("cancelled", "waiting", "failure"):
            if worst in results:
                return worst
        return "cancelled" if self.state == "cancelled" else "skipped" if results == {"skipped"} else "success"

    @property
    def results(self) -> dict[str, str]:
        """What its jobs came to."""
        return {name: job.result for name, job in self.jobs.items()}

    def inputs_of(self, action: str) -> list[dict[str, str]]:
        """Return the inputs of each use of an action."""
        return [inputs for name, inputs in self.used if name == action]

    def told(self) -> str:
        """Return what every job and step came to, with what those that ran printed."""
        lines = [f"{self.workflow}: {self.conclusion}"]
        for job in self.jobs.values():
            lines.append(f"== {job.id}: {job.result}")
            for step in job.steps:
                lines.append(f"-- {step.name}: {step.result}, {step.seconds:.1f} s\n{step.output}".rstrip())
        return "\n".join(lines)

    def described(self, url: str) -> list[dict[str, Any]]:
        """Return the jobs as GitHub's API lists them."""
        return [
            {
                "name": job.name,
                "conclusion": job.result,
                "html_url": f"{url}/actions/runs/{self.id}/job/{number}",
                "steps": (steps := [step.described() for step in job.steps if not step.inner]),
                "started_at": min((step["started_at"] for step in steps if step["started_at"]), default=None),
                "completed_at": max((step["completed_at"] for step in steps if step["completed_at"]), default=None),
            }
            for number, job in enumerate(self.jobs.values(), start=1)
        ]


def begin(hub: Hub, file: str, event: Event) -> Run:
    """Let the workflow `file`, which the event must start, into its concurrency group: it runs, or it waits.

    Of a group one runs and one waits; a new one cancels who waits, and where it says so who runs.
    Source: https://docs.github.com/en/actions/how-tos/write-workflows/choose-when-workflows-run/control-workflow-concurrency
    """
    content = hub.workflows(event)[file]
    number = 101 + len(hub.runs)
    contexts = {key: hub.contexts(event, number)[key] for key in ("github", "inputs", "vars")}
    concurrency = {key: render(value, contexts) for key, value in content.get("concurrency", {}).items()}
    this = Run(hub, number, file, event, content, concurrency)
    for other in hub.runs:
        if not concurrency or other.concurrency.get("group") != concurrency["group"]:
            continue
        if other.state == "pending" or (other.state == "running" and concurrency["cancel-in-progress"]):
            other.state = "cancelled"
        elif other.state == "running":
            this.state = "pending"
    hub.runs.append(this)
    return this


def go(this: Run, assume: dict[str, str] | None = None, approved: bool = False, kept: tuple[str, ...] = ()) -> Run:
    """Run the jobs of a run, but for those that are `kept` from before. `assume` gives results in place of running."""
    if this.state != "running":
        raise UnknownError(f"the run {this.id} is {this.state}")
    for name, job in this.content["jobs"].items():
        if unknown := set(needs(job)) - set(this.jobs):
            raise UnknownError(f"the job {name} needs {unknown}, which do not stand before it")
        if name in kept:
            continue
        this.jobs[name] = ran = JobRun(this.hub, this, name, job)
        ran.go((assume or {}).get(name), approved)
        if ran.seconds and ran.runs_on == "ubuntu-24.04":
            this.billed += max(1, math.ceil(ran.seconds / 60))
    if this.conclusion != "waiting":
        leave(this)
    return this


def leave(this: Run) -> None:
    """End a run, and let the one in that waits for it."""
    this.state = "ended"
    for other in this.hub.runs:
        if other.state == "pending" and other.concurrency["group"] == this.concurrency["group"]:
            other.state = "running"


def run(hub: Hub, file: str, event: Event, assume: dict[str, str] | None = None) -> Run:
    """Run the workflow `file`, which the event must start. `assume` gives results of jobs that are not to be run."""
    return go(begin(hub, file, event), assume)


def approve(this: Run) -> Run:
    """A reviewer approves what a run waits for: its jobs go on where they were."""
    return go(this, approved=True, kept=tuple(name for name, job in this.jobs.items() if job.result != "waiting"))


def again(this: Run, failed: bool = False) -> Run:
    """Run a run again with the same event: all jobs, or those that failed and what needs them.

    Source: https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs
    """
    kept: list[str] = []
    for name, job in this.jobs.items():
        if failed and job.result in ("success", "skipped") and set(needs(job.job)) <= set(kept):
            kept.append(name)
    this.attempt += 1
    this.state = "running"
    return go(this, kept=tuple(kept))


def deliver(hub: Hub, *events: Event, assume: dict[str, str] | None = None) -> list[Run]:
    """Run what events start, what was pushed since the last time, and all that comes of that: in GitHub's order."""
    waiting, ran = [*hub.caused(), *events], list[Run]()
    while waiting:
        event = waiting.pop(0)
        for file in hub.workflows(event):
            ran.append(this := run(hub, file, event, assume))
            waiting += hub.caused()
            if this.state == "ended":
                waiting.append(completed(hub, this))
    return ran
