"""The second working tree of `make retrain`: created anew whatever an earlier run has left, with a shared cache."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from gitops.core.artifacts import ProjectError
from gitops.integrations import tracking
from gitops.retraining import retrain
from releases import Job, isolate

#: A filter of Git that takes a minute for a file, and creates another one when it starts.
SLOW = "sh -c 'touch {}; sleep 60; cat'"


@pytest.fixture
def here(job: Job, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's clone, the working directory, in which nothing was retrained yet."""
    isolate(monkeypatch)
    for name in ("TUNE_STORAGE", "MLFLOW_TRACKING_URI", "REQUEST_LOG", "LABELS", "MONITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REASON", "drift")
    monkeypatch.setattr(retrain, "share_cache", lambda worktree: None)
    monkeypatch.chdir(job.path)
    return job.path


def test_a_kill_while_the_worktree_is_created_does_not_block_later_runs(here: Path, tmp_path: Path) -> None:
    """Git locks such a working tree, and then neither prunes nor replaces it."""
    begun = tmp_path / "begun"
    (here / ".git/info/attributes").write_text("params.yaml filter=slow\n")
    subprocess.run(["git", "config", "filter.slow.smudge", SLOW.format(begun)], check=True)
    process = multiprocessing.get_context("fork").Process(target=lambda: (os.setpgrp(), retrain.create_worktree()))
    process.start()
    while not begun.exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    assert (here / ".git/worktrees/retrain/locked").exists()
    subprocess.run(["git", "config", "--unset", "filter.slow.smudge"], check=True)
    worktree = retrain.create_worktree()
    assert (worktree / "params.yaml").read_text() == (here / "params.yaml").read_text()
    retrain.remove_worktree()
    assert not worktree.exists() and not (here / ".git/worktrees").exists()


def test_the_cache_is_shared_whatever_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC writes ASCII alone; what the settings of this clone alone say stays there."""
    here, worktree = tmp_path / "50% größer ß", tmp_path / "50% größer ß/.dvc/tmp/retrain"
    for folder in (here, worktree):
        (folder / ".dvc").mkdir(parents=True)
        (folder / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    (worktree / ".dvc/config.local").write_text(
        "['remote \"storage\"']\n    url = ssh://host/srv\n    user = Größe\n", encoding="utf-8"
    )
    monkeypatch.chdir(here)
    retrain.share_cache(worktree)
    from dvc.repo import Repo

    with Repo(str(worktree)) as there:
        assert there.cache.local.path == str(here / ".dvc/cache/files/md5")
        assert there.config["remote"]["storage"]["user"] == "Größe"


def test_results_are_kept_outside_the_worktree(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(tracking, "connect", lambda settings: begun.append((Path.cwd(), settings.package.model_name)))
    worktree = retrain.create_worktree()
    (worktree / ".checkpoints/one").mkdir()
    made = retrain.environment(here, worktree)
    assert made["TUNE_STORAGE"] == f"sqlite:///{here}/tune.db"
    assert made["MLFLOW_TRACKING_URI"] == f"sqlite:///{here}/mlflow.db" and begun == [(here, "toy")]
    for name in ("TUNE_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "postgresql://host/database")
        assert retrain.environment(here, worktree)[name] == "postgresql://host/database"
    retrain.remove_worktree()
    assert (here / ".checkpoints/one").is_dir()


def test_without_a_reason_or_an_origin_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REASON", raising=False)
    with pytest.raises(ProjectError, match="REASON is not set"):
        retrain.main()
    bench = tmp_path / "clone"
    bench.mkdir()
    monkeypatch.chdir(bench)
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(ProjectError, match="no remote to push"):
        retrain.create_worktree()


def test_two_at_once_in_one_repository_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with retrain.lock(), pytest.raises(ProjectError, match="another `make retrain`"), retrain.lock():
        pytest.fail("both")
    with retrain.lock() as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
    try:  # as where this process alone was killed
        with pytest.raises(ProjectError, match="another `make retrain`"), retrain.lock():
            pytest.fail("both")
    finally:
        child.kill()
        child.wait()
    with retrain.lock():
        pass


@pytest.mark.parametrize(
    "before", [{}, {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"}]
)
def test_an_origin_beside_the_repository_is_found(
    before: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    here, worktree = tmp_path / "project", tmp_path / "project/some/where"
    for command in ("init --quiet --bare origin.git", "init --quiet project"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    subprocess.run(["git", "remote", "add", "origin", "../origin.git"], cwd=here, check=True)
    worktree.mkdir(parents=True)
    monkeypatch.chdir(here)
    found = retrain.absolute_origin(here, before)
    for name, value in (before | found).items():
        monkeypatch.setenv(name, value)
    subprocess.run(["git", "ls-remote", "origin"], cwd=worktree, check=True)
    assert int(found["GIT_CONFIG_COUNT"]) == len(before) // 3 + 1
    for elsewhere in ("https://github.example/a/b.git", "git@github.example:a/b.git", str(tmp_path / "origin.git")):
        subprocess.run(["git", "remote", "set-url", "origin", elsewhere], cwd=here, check=True)
        assert retrain.absolute_origin(here, before) == {}
