"""Tuning by several processes: two that share a study on a real Postgres, and one that is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg2
import pytest
from gitops.core import artifacts, params
from gitops.tuning import study as studies
from gitops.tuning import tune
from optuna.trial import TrialState
from ports import free_port
from tuning import PARAMS, make_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "p@ss/word:%41 {with} 'all' sorts"  # noqa: S105 - of a database that lives as long as its test

#: A worker that prints when it is ready, starts when all are, and is slow, so that each does some of the trials.
WORKER = """
import pathlib, sys, time
from breast_cancer import train
from gitops.core import artifacts
from gitops.tuning import tune

tune.HEARTBEAT, tune.GRACE = 1, 2
pause, score = float(sys.argv.pop()), train.validation_loss
train.validation_loss = lambda *rows: (time.sleep(pause), score(*rows))[1]
print("ready", flush=True)
while not pathlib.Path("begin").exists():
    time.sleep(0.01)
artifacts.run(tune.main)
"""


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root with params.yaml and the prepared splits, but for the test split."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNE_STORAGE", raising=False)
    make_room()
    return tmp_path


def program(name: str) -> str:
    """Return the path of one of Postgres' programs, which Debian keeps off PATH; skip where there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if found := shutil.which(name) or (str(installed[-1]) if installed else ""):
        return found
    pytest.skip(f"{name} of Postgres is not installed")


@pytest.fixture
def postgres() -> Iterator[str]:
    """A Postgres that asks for a password; yields the address of its database."""
    initdb, server_program = program("initdb"), program("postgres")
    # Postgres refuses to run as root, and Debian's package makes it a user.
    user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o644)
    if user:
        shutil.chown(folder, "postgres")
    common: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}
    command = [initdb, "--auth=scram-sha-256", "--username=tuner", f"--pwfile={secret}", "--no-sync", "-D", "data"]
    subprocess.run(command, check=True, **common)
    options = [f"--port={port}", "--listen_addresses=127.0.0.1", f"--unix_socket_directories={folder}", "--fsync=off"]
    server = subprocess.Popen([server_program, "-D", "data", *options], stderr=subprocess.DEVNULL, **common)
    address = f"postgresql://tuner:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
    try:
        wait_until(lambda: answers(address), server)
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for the connections that this process keeps
        server.wait()
        shutil.rmtree(folder)


def answers(address: str) -> bool:
    try:
        psycopg2.connect(address).close()
    except psycopg2.OperationalError:
        return False
    return True


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[Any] | None = None, seconds: float = 120) -> None:
    """Wait until it is so. Raises AssertionError where the process ends before, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert process is None or process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)


def worker(trials: int, pause: float) -> subprocess.Popen[str]:
    """Start a worker whose epochs each last `pause` seconds longer, and wait until it is ready."""
    arguments = ["--worker", "--trials", str(trials), str(pause)]
    started = subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def test_two_workers_share_a_study_in_postgres(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_STORAGE", postgres)
    workers = [worker(12, 0.1), worker(12, 0.1)]
    Path("begin").touch()
    said = [process.communicate(timeout=300)[0] for process in workers]
    assert [process.returncode for process in workers] == [0, 0], said

    settings = params.load()
    trials = studies.open_study(settings, tune.connect()).trials
    done = [{int(number) for number in re.findall(r"^trial (\d+): ", text, re.MULTILINE)} for text in said]
    assert all(done), "one worker did all trials"
    assert done[0].isdisjoint(done[1])
    assert done[0] | done[1] == {trial.number for trial in trials} == set(range(len(trials)))
    assert 12 <= len(trials) <= 13  # the last two may have been begun together
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    values = [studies.values_of(trial) for trial in trials]
    assert values[0] == studies.present(settings)
    assert all(values.count(one) == 1 for one in values), "a trial was done twice"

    # A run without --worker has no trial left to train, and compares.
    monkeypatch.setattr("sys.argv", ["tune", "--trials", "12"])
    assert tune.main() == 0
    assert artifacts.read_json(artifacts.TUNE, "make tune")["finished"] == len(trials)


def test_the_trial_of_a_killed_worker_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def heartbeats(older_than: int) -> int:
        """Return how many trials last said more than so many seconds ago that they run."""
        query = "select count(*) from trial_heartbeats where heartbeat < datetime('now', ?)"
        try:
            with sqlite3.connect("tune.db") as database:
                return int(database.execute(query, (f"{-older_than:+d} seconds",)).fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    Path("begin").touch()
    killed = worker(5, 600)
    wait_until(lambda: heartbeats(-1) > 0, killed)
    killed.kill()
    killed.communicate()
    wait_until(lambda: heartbeats(2) > 0)  # the grace period is over

    after = worker(5, 0)
    said, _ = after.communicate(timeout=300)
    assert after.returncode == 0, said
    settings = params.load()
    first, *others = studies.open_study(settings, tune.connect()).trials
    assert first.state == TrialState.FAIL
    assert len(others) == 5
    assert {trial.state for trial in others} <= {TrialState.COMPLETE, TrialState.PRUNED}
    (again,) = [trial for trial in others if trial.system_attrs.get("retry_history") == [first.number]]
    assert studies.values_of(again) == studies.values_of(first) == studies.present(settings)
    assert artifacts.PARAMS.read_text() == PARAMS
