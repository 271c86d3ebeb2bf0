"""Retraining for real: killed in each of its long steps and run again, tuned, refused, and of a table that is imported.

Each test begins with the project as it was when its first model was released; the processes are `make retrain`'s own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import ROOT, environment, generate, make, module_of
from workflow_real import log_requests

pytestmark = [pytest.mark.real, pytest.mark.full]

#: Results are had sooner with these, and every working model is accepted.
QUICK = {
    "  epochs: 200": "  epochs: 10",
    "roc_auc: 0.9": "roc_auc: 0.6",
    "tolerance: 0.005": "tolerance: 0.3",
    "brier: 0.02": "brier: 0.3",
}

#: Settings with which the model learns nothing, and a search that finds better ones.
TRIALS = 4
UNLEARNED = {
    "learning_rate: 0.002": "learning_rate: 0.00001",
    "tune_trials: 0": f"tune_trials: {TRIALS}",
    "{low: 0.0002, high: 0.02, log: true}": "{low: 0.00001, high: 0.01}",
}

#: Holds a push to a branch retrain/* once, where the file `hold` asks for it, before or after it has taken effect.
HOOK = """#!/bin/sh
while read -r _ _ ref; do
  case "$ref" in
    refs/heads/retrain/*) if [ "$(cat hold)" = "${0##*/}" ]; then echo > hold; touch held; sleep 60; fi ;;
  esac
done
"""

#: What a stage makes anew each time, although of the same inputs: pages, and the address of its MLflow run.
NEW = (".html", "model/run.json")


@dataclass
class Room:
    """A project with a release, its origin and its DVC remote, and what `make retrain` does there."""

    folder: Path
    project: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.origin, self.storage = self.folder / "origin.git", self.folder / "storage"
        self.tree, self.log = self.project / ".dvc/tmp/retrain", self.folder / "retrain.log"

    def keep(self) -> None:
        """Remember all three as they are now, but for the environments."""
        for path in (self.project, self.origin, self.storage):
            shutil.copytree(path, self.folder / "kept" / path.name, ignore=shutil.ignore_patterns(".venv"))

    def reset(self) -> None:
        """Bring all three back to what they were then."""
        for path in (self.origin, self.storage, *self.project.iterdir()):
            if path.name != ".venv":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.project, self.origin, self.storage):
            shutil.copytree(self.folder / "kept" / path.name, path, dirs_exist_ok=True)
        self.variables = {}

    def git(self, *arguments: str, at: Path | None = None) -> str:
        done = subprocess.run(["git", "-C", at or self.project, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def dvc(self, *arguments: str) -> None:
        subprocess.run([self.project / ".venv/pipeline/bin/dvc", *arguments], cwd=self.project, check=True)

    def change(self, edits: dict[str, str]) -> None:
        """Change params.yaml on main."""
        path = self.project / "params.yaml"
        text = path.read_text()
        for old, new in edits.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path.write_text(text)
        self.commit("Change settings")

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "main")

    @contextmanager
    def started(self, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `make retrain` in a process group of its own, which ends with the block at the latest."""
        wanted = environment() | {"REASON": "a test"} | self.variables | variables
        with self.log.open("w") as log:
            process = subprocess.Popen(
                ["make", "retrain"], cwd=self.project, env=wanted, stdout=log, stderr=log, process_group=0
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def retrain(self, **variables: str) -> str:
        """Let it end, and return what it said."""
        with self.started(**variables) as process:
            process.wait()
        assert process.returncode == 0, self.said()
        return self.said()

    def kill(self, when: Callable[[], Any], **variables: str) -> None:
        """Kill all of its processes as soon as something is the case."""
        with self.started(**variables) as process:
            while not when():
                assert process.poll() is None, f"it has ended before\n{self.said()}"
                time.sleep(0.002)
        assert process.returncode == -signal.SIGKILL

    def said(self) -> str:
        return self.log.read_text()

    def hold(self, hook: str) -> Callable[[], bool]:
        """Let the next push of a candidate stop in a hook of origin, and return what tells whether it has."""
        for name in ("pre-receive", "post-receive"):
            (self.origin / "hooks" / name).write_text(HOOK)
            (self.origin / "hooks" / name).chmod(0o755)
        (self.origin / "hold").write_text(hook)
        (self.origin / "held").unlink(missing_ok=True)
        return (self.origin / "held").exists

    def branches(self) -> list[str]:
        """Return the candidates on origin."""
        return self.git("for-each-ref", "--format=%(refname:short)", "refs/heads/retrain", at=self.origin).split()

    def last(self) -> str:
        """Return the message by which origin remembers the newest retraining."""
        return self.git("log", "-1", "--format=%B", "refs/retrain/last", at=self.origin)

    def show(self, branch: str, name: str) -> str:
        return self.git("show", f"{branch}:{name}", at=self.origin)

    def state(self, branch: str) -> dict[str, str]:
        """Return what a candidate is: its settings, its data, and the digests of what was made of them."""
        names = ("params.yaml", "data/raw.csv.dvc", "data/appended.dvc", "data/appended.json")
        files = {name: self.show(branch, name) for name in names}
        stages = yaml.safe_load(self.show(branch, "dvc.lock"))["stages"].values()
        outputs = {output["path"]: output["md5"] for stage in stages for output in stage["outs"]}
        return files | {path: md5 for path, md5 in outputs.items() if not path.endswith(NEW)}

    def table(self, branch: str) -> list[str]:
        """Return the lines of the table that a candidate names, without appended ones, from the DVC remote."""
        return self.stored(self.pointer(branch, "data/raw.csv")).splitlines()

    def appended(self, branch: str) -> list[str]:
        """Return the lines of the parts that a candidate appends, without their headers, from the DVC remote."""
        listing = json.loads(self.stored(self.pointer(branch, "data/appended")))
        md5s = {file["relpath"]: file["md5"] for file in listing}
        names = json.loads(self.show(branch, "data/appended.json"))["files"]
        return [line for name in names for line in self.stored(md5s[name]).splitlines()[1:]]

    def pointer(self, branch: str, path: str) -> str:
        """Return the md5 of what a candidate says lies at a path."""
        return str(yaml.safe_load(self.show(branch, f"{path}.dvc"))["outs"][0]["md5"])

    def stored(self, md5: str) -> str:
        return (self.storage / "files/md5" / md5[:2] / md5[2:]).read_text()

    def objects(self) -> list[Path]:
        """Return the objects of the DVC remote, but for what a killed process of DVC's was writing."""
        return [path for path in (self.storage / "files").rglob("*") if path.is_file() and path.suffix != ".tmp"]

    def count(self, database: str, question: str) -> int:
        """Ask an SQLite database in the project for a number, which is 0 where there is none yet."""
        address = f"file:{self.project / database}?mode=ro"
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(address, uri=True)) as connection:
            return int(connection.execute(question).fetchone()[0])
        return 0

    def trials(self) -> int:
        """Return how many trials of a study are finished."""
        return self.count("tune.db", "select count(*) from trials where state in ('COMPLETE', 'PRUNED')")

    def check_tidy(self) -> None:
        """Nothing is left over, and nothing is half there."""
        assert not self.tree.exists() and len(self.git("worktree", "list").splitlines()) == 1
        assert list((self.project / ".checkpoints").iterdir()) == []
        assert self.count("mlflow.db", "select count(*) from runs where status != 'FINISHED'") == 0
        for path in self.objects():
            name = path.parent.name + path.name
            assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == name.removesuffix(".dir")


@pytest.fixture(scope="module")
def released(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Room:
    """The default project after a short training, released."""
    folder = tmp_path_factory.mktemp("retraining")
    room = Room(folder, generate(folder, dvc_remote=str(folder / "storage")))
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", room.origin], check=True)
    room.git("remote", "add", "origin", str(room.origin))
    room.change(QUICK)
    make(room.project, "pipeline")
    room.commit("Train")
    make(room.project, "verify")
    make(room.project, "gate")
    make(room.project, "plan")
    make(room.project, "deploy")
    room.keep()
    return room


@pytest.fixture
def room(released: Room) -> Room:
    released.reset()
    return released


class Held:
    """GitHub's answers to a new pull request, which do not come until the one who asked is dead."""

    def __init__(self, server: Any) -> None:
        self.server, self.answer = server, server.answer
        self.arrived, self.dead = threading.Event(), threading.Event()
        self.after: bool | None = None  # whether the pull request is opened nevertheless
        server.answer = self.stop

    def stop(self, call: Any, token: str) -> Any:
        if call.method != "POST" or self.after is None:
            return self.answer(call, token)
        answer = self.answer(call, token) if self.after else (500, {}, {})
        self.arrived.set()
        self.dead.wait(60)
        return answer

    def next(self, after: bool) -> Callable[[], bool]:
        self.after, self.arrived, self.dead = after, threading.Event(), threading.Event()
        return self.arrived.is_set

    def over(self) -> None:
        self.after = None
        self.dead.set()


@pytest.fixture
def github(room: Room, tmp_path: Path) -> Iterator[Any]:
    """GitHub, in front of origin."""
    with module_of(ROOT, "tests/gitops/github_server.py").GitHub(tmp_path) as server:
        room.variables |= server.environment
        yield server


def new_requests(room: Room, folder: Path) -> list[str]:
    """Let a hundred labelled requests have come, and return the table's lines before."""
    room.variables |= log_requests(folder, room.project / "data/raw.csv")
    return (room.project / "data/raw.csv").read_text().splitlines()


def test_kill_in_each_step(room: Room, github: Any, tmp_path: Path) -> None:
    """Killed in each long step in turn, it ends in the state of a run that nobody has killed; then it is refused."""
    before = new_requests(room, tmp_path)
    room.change(UNLEARNED)
    room.git("switch", "--quiet", "--create", "mine")
    (room.project / "README.md").write_text("unfinished\n")
    held, objects = Held(github), len(room.objects())
    room.kill(lambda: list(room.tree.glob("data/appended/appended-*")))
    room.kill(lambda: room.trials() >= 1)
    assert room.trials() < TRIALS
    room.kill(lambda: room.trials() == TRIALS and not (room.tree / "reports/tune.json").exists())
    room.kill(lambda: list(room.project.glob(".checkpoints/*/checkpoint.pt")))
    settings = (room.tree / "params.yaml").read_text()
    room.kill(lambda: "Running stage 'evaluate'" in room.said())
    assert "resuming after epoch" in room.said()
    room.kill(lambda: len(room.objects()) > objects)
    room.kill(room.hold("pre-receive"))
    assert room.branches() == []
    room.kill(held.next(after=False))
    held.over()
    assert len(room.branches()) == 1 and github.pulls == []
    room.kill(held.next(after=True))
    held.over()
    assert "is open: merge or close it first" in room.retrain()

    (pull,) = github.pulls
    (branch,) = room.branches()
    assert pull["head"]["ref"] == branch and "Retrain-reason: a test" in room.last()
    assert "100 labelled requests appended" in pull["body"] and "searched anew: Better: " in pull["body"]
    assert pull["draft"] and "| 2026-11-01 | `unknown` | 100 |" in pull["body"]
    assert room.table(branch) == before and len(room.appended(branch)) == 100
    state = json.loads(room.show(branch, "data/appended.json"))
    assert state["parts"] == [len(before) - 1] and len(state["requests"]) == 100
    assert room.show(branch, "params.yaml") == settings.rstrip("\n") and "learning_rate: 0.00001" not in settings
    assert room.trials() == TRIALS and room.count("tune.db", "select count(*) from studies") == 1
    room.check_tidy()
    assert room.git("branch", "--show-current") == "mine" and room.git("status", "--porcelain") == "M README.md"

    broken = room.state(branch)
    shutil.copyfile(room.project / "tune.db", tmp_path / "tune.db")
    unbroken(room, tmp_path, branch, broken)
    refused(room, tmp_path)


def unbroken(room: Room, folder: Path, branch: str, state: dict[str, str]) -> None:
    """The same in one go, with the trials that were drawn: they are drawn at random."""
    variables = room.variables
    room.reset()
    room.change(UNLEARNED)
    shutil.copyfile(folder / "tune.db", room.project / "tune.db")
    room.variables = {name: variables[name] for name in ("REQUEST_LOG", "LABELS")}
    assert f"Opened: {branch} on origin" in room.retrain()
    assert room.state(branch) == state
    room.check_tidy()


def refused(room: Room, folder: Path) -> None:
    """The same candidate where more is asked of one."""
    for ref in (*(f"refs/heads/{branch}" for branch in room.branches()), "refs/retrain/last"):
        room.git("update-ref", "-d", ref, at=room.origin)
    room.change({"    roc_auc: 0.6": "    roc_auc: 0.6\n    brier: 0.0"})
    summary, output = folder / "summary.md", folder / "output"
    told = room.retrain(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary), GITHUB_OUTPUT=str(output))
    assert "::warning title=Retraining::Refused" in told
    report = (room.project / "reports/retrain/report.md").read_text()
    assert "Refused" in report and "100 labelled requests appended" in report
    assert summary.read_text().startswith(report) and "\nNothing opened: Refused: brier is " in summary.read_text()
    assert "\nrefused\n" in output.read_text()
    assert "\ntrue\n" in output.read_text() and room.git("ls-remote", "origin", "refs/retrain/last") == ""
    assert "recorded in refs/retrain/last" in make(room.project, "propose")
    assert room.branches() == [] and "Retrain-result: refused" in room.last()
    assert "less than retrain.cooldown_hours" in room.retrain()
    room.check_tidy()


@dataclass
class Source:
    """A server with one table, which it can stop sending in the middle."""

    table: bytes
    tag: str = "1"
    stops: bool = False

    def __post_init__(self) -> None:
        self.stopped = threading.Event()

    @contextmanager
    def served(self) -> Iterator[str]:
        """Yield the table's address."""
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.begin()

            def do_GET(self) -> None:
                self.begin()
                half = len(source.table) // 2
                self.wfile.write(source.table[:half])
                if source.stops:
                    source.stopped.set()
                    time.sleep(1)
                with suppress(BrokenPipeError):
                    self.wfile.write(source.table[half:])

            def begin(self) -> None:
                self.send_response(200)
                self.send_header("ETag", f'"{source.tag}"')
                self.send_header("Content-Length", str(len(source.table)))
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/table.csv"
            server.shutdown()


def test_import(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version at an address is a candidate, the same one is none; killed while it is fetched or proposed.

    In a clone in which nothing was ever trained.
    """
    for path in (*room.project.glob("mlflow.db*"), *room.project.glob("mlruns")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    table = room.project / "data/raw.csv"
    source = Source(table.read_bytes())
    with source.served() as address:
        room.git("rm", "--quiet", "--cached", "data/raw.csv.dvc")
        (room.project / "data/raw.csv.dvc").unlink()
        table.unlink()
        room.dvc("import-url", "--quiet", address, "data/raw.csv")
        room.commit("Import the table")
        assert "no new data or settings since main" in room.retrain()
        source.tag = "2"
        assert "no new data or settings since main" in room.retrain()
        assert room.branches() == []

        lines = source.table.decode().splitlines()
        source.table = "\n".join(
            [*lines, *(f"{line.rpartition(',')[0]}1,{line.rpartition(',')[2]}" for line in lines[1:101])]
        ).encode()
        source.tag, source.stops = "3", True
        room.kill(source.stopped.is_set)
        source.stops = False
        room.kill(room.hold("post-receive"))
        (branch,) = room.branches()
        assert "is open: merge or close it first" in room.retrain()
        assert room.branches() == [branch] and "Retrain-reason: a test" in room.last()
        assert room.table(branch) == source.table.decode().splitlines()
        room.git("fetch", "--quiet")
        room.git("merge", "--quiet", f"origin/{branch}")
        room.git("push", "--quiet", "origin", "main", f":{branch}")
        assert "Running stage" not in make(room.project, "pipeline")
        assert table.read_bytes() == source.table
        assert room.count("mlflow.db", "select count(*) from runs") == 1
        assert list((room.project / "mlruns").rglob("model.pt2"))
        assert "no new data or settings since main" in room.retrain(FORCE="1")
        room.check_tidy()
