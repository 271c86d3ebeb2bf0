"""What work costs: trainings, runs that did something, jobs, and the minutes that GitHub bills for them.

Each job that runs on GitHub's machines is a minute at least, so the number of jobs is the floor of the bill; on the
small project it is the bill. `benchmarks/runs.py` prints the same stories.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from workflow_project import Project, small_project
from workflow_stories import STORIES, Cost, tell


@pytest.fixture
def project(projects: dict[str, Path], tmp_path: Path) -> Iterator[Project]:
    with small_project(tmp_path, projects["defaults"]) as made:
        made.set_up()
        made.push("main")
        made.deliver()
        made.log()
        yield made


#: Trainings; runs of CI, Report and others that did something; jobs, which are minutes.
COSTS = {
    # three pushes (test, pipeline, pass), two comments: when the pull request is opened, and after its push; then the
    # merge (test, verify, build, release)
    "three pushes and a merge": Cost(trainings=3, runs=6, jobs=15, minutes=15),
    # the fork's run and its comment; main trains what it cannot take from a stranger
    "a fork": Cost(trainings=2, runs=3, jobs=8, minutes=8),
    # retrain and propose; CI on the branch and its comment; the merge
    "a retraining": Cost(trainings=1, runs=4, jobs=10, minutes=10),
    # the merge queue runs each pull request once more, and takes its model over
    "a merge queue": Cost(trainings=1, runs=4, jobs=11, minutes=11),
    # nothing to train: one run of the branch, no image
    "a document": Cost(trainings=0, runs=3, jobs=6, minutes=6),
    "a rollback": Cost(trainings=0, runs=1, jobs=1, minutes=1),
}


@pytest.mark.parametrize("story", STORIES)
def test_cost(story: str, project: Project, tmp_path: Path) -> None:
    cost = tell(story, project, tmp_path)
    assert cost == COSTS[story]
