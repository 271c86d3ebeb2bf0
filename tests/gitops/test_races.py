"""Two merges whose deploy jobs overlap: the newest wins and the release log loses nothing, whichever job is faster."""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
from gitops.core.artifacts import digest
from gitops.integrations import git, kustomize
from gitops.releases import release
from releases import Job, isolate, together

#: Races in all, half of them in each order. A few show that nothing is broken; RACES=50 makes sure.
RACES = int(os.environ.get("RACES", "6"))
ROUNDS = RACES // 2

#: By how much later the second job starts in the last round, in seconds; in the first they start together. A job takes
#: about that long here, so that its fetch, its commit and its push meet every step of the other one.
STAGGER = 0.1

#: What stands for an environment's manifests, with all that they are rendered from: kustomize would take longer.
OBJECT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "all"}}


class Lost:
    """How many pushes origin has refused, counted in all processes."""

    def __init__(self) -> None:
        self.count = multiprocessing.get_context("fork").Value("i", 0)
        self.push = git.push

    def __call__(self, commit: str, branch: str) -> None:
        try:
            self.push(commit, branch)
        except git.GitError:
            with self.count:
                self.count.value += 1
            raise


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Any:
    isolate(monkeypatch)
    lost = Lost()
    monkeypatch.setattr(git, "push", lost)
    # Each round has new models. Their manifests are written at once, so that the jobs spend their time on the race.
    monkeypatch.setattr(kustomize, "render", lambda *asked: {"all.yaml": json.dumps(OBJECT | {"data": asked}).encode()})
    return lost.count


def deploy(job: Job, delay: float) -> None:
    time.sleep(delay)
    job.write("reports/released.txt", job.compete() or "")


def movements(origin: Path) -> list[list[str]]:
    """Return what each push to env/production moved it from and to, as origin has logged it."""
    return [line.split()[:2] for line in (origin / "logs/refs/heads/env/production").read_text().splitlines()]


@pytest.mark.parametrize("late", ["older", "newer"])
def test_two_jobs_at_the_same_time(
    late: str, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Any
) -> None:
    older, newer = Job(origin, tmp_path / "older"), Job(origin, tmp_path / "newer")
    jobs = {job.path: job for job in (older, newer)}
    newer.git("config", "core.logAllRefUpdates", "true", at=origin)  # as it is not for a bare repository by default
    history: list[str] = []
    for number in range(ROUNDS):
        first = newer.merge(f"Older change {number}")
        newest = newer.merge(f"Newer change {number}")
        older.git("pull", "--quiet", "origin", first)
        for path, job in jobs.items():
            job.train(f"{path.name} model {number}")
            job.gate()
            job.plan()
        delays = {path: STAGGER * number / (ROUNDS - 1) * (path.name == late) for path in jobs}
        assert together([functools.partial(deploy, job, delays[path]) for path, job in jobs.items()]) == [0, 0]

        production = newer.production()
        assert production.record.commit == newest
        assert production.record.model.sha256 == digest(newer.path / "model/model.pt2")
        before, history = history, newer.git("rev-list", "--reverse", production.commit).split()
        # Each push moved the branch on by the one commit that its job reports, and none of them is gone.
        assert movements(origin) == [list(pair) for pair in zip(["0" * 40, *history], history, strict=False)]
        assert history[: len(before)] == before
        reported = [(path / "reports/released.txt").read_text() for path in jobs]
        assert reported[1] == production.commit
        assert [commit for commit in reported if commit] == history[len(before) :]
        with contextlib.chdir(newer.path):
            for parent, commit in zip([None, *history], history, strict=False):
                if commit not in before:
                    assert release.read(commit).previous == parent
    assert RACES < 50 or lost.value > 0, "no push was refused: the jobs have not met"
