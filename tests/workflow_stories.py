"""Stories of a repository's life, and what they cost: for the tests, and for benchmarks/runs.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workflow_events import dispatch, of_main
from workflow_project import Project
from workflow_runner import Run


@dataclass(frozen=True)
class Cost:
    """`runs` are those in which a job ran; `jobs` are theirs, and `minutes` each job's, rounded up."""

    trainings: int
    runs: int
    jobs: int
    minutes: int


def three_pushes(project: Project, folder: Path) -> list[Run]:
    """Two pushes to a branch, a pull request, a third push, the merge: each push with other settings."""
    project.change("idea", "epochs: 20")
    runs = project.deliver()
    project.change("idea", "epochs: 30")
    runs += project.deliver()
    runs += project.deliver(project.open(1, "idea"))
    project.change("idea", "epochs: 40")
    runs += project.deliver(project.open(1, "idea", "synchronize"))
    project.merge(1)
    return runs + project.deliver()


def fork(project: Project, folder: Path) -> list[Run]:
    """A stranger's pull request, and its merge."""
    path = folder / "fork.git"
    project.git("clone", "--quiet", "--bare", str(project.hub.origin), str(path))
    project.change("idea", "epochs: 20", to=str(path))
    runs = project.deliver(project.open(1, "idea", fork=("stranger/name", path)))
    project.merge(1)
    return runs + project.deliver()


def retraining(project: Project, folder: Path) -> list[Run]:
    """The weekly retraining, and the merge of what it proposes."""
    project.hub.vars |= project.requests(folder)
    runs = project.deliver(of_main(project.hub, "schedule"))
    [number] = project.hub.pulls
    project.merge(number)
    return runs + project.deliver()


def queue(project: Project, folder: Path) -> list[Run]:
    """A push, its pull request, the merge queue, the merge."""
    project.change("idea", "epochs: 20")
    runs = project.deliver()
    runs += project.deliver(project.open(1, "idea"))
    runs += project.queue(1)
    return runs + project.deliver()


def document(project: Project, folder: Path) -> list[Run]:
    """A change of words alone."""
    project.change("words", readme="# A project")
    runs = project.deliver()
    runs += project.deliver(project.open(1, "words"))
    project.merge(1)
    return runs + project.deliver()


def rollback(project: Project, folder: Path) -> list[Run]:
    """The button, after a second release."""
    project.change("main", "epochs: 20")
    project.deliver()
    project.trainings()
    return project.deliver(dispatch(project.hub, "rollback.yaml", inputs={"environment": "production"}))


STORIES: dict[str, Callable[[Project, Path], list[Run]]] = {
    "three pushes and a merge": three_pushes,
    "a fork": fork,
    "a retraining": retraining,
    "a merge queue": queue,
    "a document": document,
    "a rollback": rollback,
}


def tell(story: str, project: Project, folder: Path) -> Cost:
    """Let a story happen and return what it has cost."""
    runs = STORIES[story](project, folder)
    assert all(run.conclusion in ("success", "skipped") for run in runs), [run.told() for run in runs]
    ran = [[job for job in run.jobs.values() if job.result != "skipped"] for run in runs]
    minutes = sum(run.billed for run in runs)
    return Cost(project.trainings(), len([jobs for jobs in ran if jobs]), sum(map(len, ran)), minutes)
