"""What DVC and Git have to store after a retraining: the appended rows, and nothing else anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from defaults import complete
from dvc.repo import Repo
from gitops.core import artifacts, params
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.integrations import dvc
from gitops.monitoring import ground_truth
from gitops.monitoring.ground_truth import Found, Labelled
from gitops.retraining import candidate, ingest
from gitops.tabular import parts
from part_tables import ROWS, csv_table
from part_tables import here as here

#: A value that no other cell has: where it may not be, it must not be found.
MARK = "7654321.25"


class Project:
    """A repository with the real DVC and the stage `prepare`; `requests` are what the log has."""

    def __init__(self, path: str, remote: str, requests: list[Labelled]) -> None:
        self.requests = requests
        Path("project/data").mkdir(parents=True)
        self.path, self.remote = Path("project").resolve(), Path("project", remote).resolve()
        os.chdir(self.path)
        self.git("init", "--quiet", "--initial-branch=main")
        with Repo.init() as repository, repository.config.edit() as config:
            config["core"] = {"remote": "storage", "analytics": False}
            config["remote"]["storage"] = {"url": remote}
        write_table(Path(path))
        write_settings(path)
        parts.FOLDER.mkdir()
        (parts.FOLDER / "README.md").write_text("Appended rows\n")
        artifacts.write_json(APPENDED, {"table": None, "parts": []})
        Path(".gitignore").write_text("/data/prepared\n")
        with Repo() as repository:
            repository.add([path, "data/appended"])
        prepare()
        self.commit("Begin")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Tester", "-c", "user.email=t@localhost")
        return subprocess.run(
            ["git", *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.rstrip()

    def commit(self, message: str) -> None:
        dvc.push()
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def changed(self) -> set[str]:
        """Return the files that Git would have to store anew."""
        return {line[3:] for line in self.git("status", "--porcelain", "--untracked-files=all").splitlines()}

    def objects(self) -> dict[str, int]:
        """Return the objects of the DVC remote, with their sizes."""
        files = (path for path in (self.remote / "files/md5").rglob("*") if path.is_file())
        return {"".join(path.parts[-2:]): path.stat().st_size for path in files}

    def ask(self, *values: float) -> None:
        for value in values:
            number, time = len(self.requests), datetime(2026, 11, 1, len(self.requests), tzinfo=UTC)
            inputs = {"x": value, "note": "a", "count": number}
            self.requests.append(Labelled(f"{number:016}", "team-a", time, inputs, "yes"))


def write_table(path: Path) -> None:
    """Write the same rows as one CSV file, or as a folder of two parquet files."""
    if path.suffix == ".csv":
        csv_table(path)
        return
    path.mkdir()
    frame = pd.read_csv(csv_table(Path("all.csv")))
    Path("all.csv").unlink()
    frame[:40].to_parquet(path / "a.parquet", index=False)
    frame[40:].to_parquet(path / "z.parquet", index=False)


def write_settings(path: str) -> None:
    gate = {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.5}}
    data = {"path": path, "target": "y", "task": "binary"}
    values = complete({"data": data, "gate": gate, "package": {"model_name": "toy"}})
    Path("params.yaml").write_text(yaml.safe_dump(values))
    names = ("schema.json", "test.parquet", "train.parquet", "val.parquet")
    stage = {
        "cmd": f"{sys.executable} -m breast_cancer.prepare",
        "deps": [path, "data/appended", str(APPENDED)],
        "params": ["data"],
        "outs": [f"data/prepared/{name}" for name in names],
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))


def prepare() -> pd.Series[Any]:
    """Run the stage if it is stale, fetch what is missing, and return the split of each row of the table."""
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "--pull"], check=True)
    frames = {name: pd.read_parquet(f"data/prepared/{name}.parquet") for name in ("train", "val", "test")}
    found = pd.concat([frame.assign(split=name) for name, frame in frames.items()])
    return found.set_index(artifacts.ROW)["split"].sort_index()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Labelled]:
    """The labelled requests of the log; a reader of it leaves out those that are known."""
    rows: list[Labelled] = []

    def read(after: Any, known: Any, used: Any, data: Any, horizon: Any) -> Found:
        return Found(rows=[row for row in rows if row.request_hash not in known])

    monkeypatch.setattr(ground_truth, "read", read)
    return rows


@pytest.mark.parametrize("remote", ["dvc-remote", "../storage"], ids=["remote-in-git", "remote-elsewhere"])
@pytest.mark.parametrize("path", ["data/raw.csv", "data/raw.parquet"], ids=["file", "folder"])
def test_only_the_appended_rows_are_stored_anew(path: str, remote: str, log: list[Labelled]) -> None:
    """In the DVC remote by each of two retrainings, and in Git if that remote is in the repository; splits stay."""
    project = Project(path, remote, log)
    older = prepare()
    folder = parts.FOLDER if path.endswith(".csv") else Path(path)
    for number, values in enumerate(([float(MARK), 2.5, 3.5], [float(MARK)] * 2), start=1):
        stored, tracked = project.objects(), project.git("ls-files").splitlines()
        project.ask(*values)
        update = ingest.update_tables(params.load())
        assert (update["rows"], update["table_rows"]) == (len(values), len(older) + len(values))
        assert update["before"] != update["after"] == artifacts.tracked_md5(folder)
        pointers = [Path(f"{folder}.dvc"), APPENDED]
        assert project.changed() == {*map(str, pointers)}
        assert all(MARK not in pointer.read_text() for pointer in pointers)

        dvc.push()
        state = json.loads(APPENDED.read_text())
        part = folder / state["files"][-1]
        added = {artifacts.digest(each, "md5") for each in (part, parts.requests(part))}
        new = {md5: size for md5, size in project.objects().items() if md5 not in stored}
        assert {*new} == {*added, update["after"]} and stored.items() <= project.objects().items()
        handed = {path.as_posix() for path in candidate.new_objects(pointers)}
        here = {f"dvc-remote/files/md5/{md5[:2]}/{md5[2:]}" for md5 in new} if remote == "dvc-remote" else set()
        assert handed == here == project.changed() - {*map(str, pointers)} and handed.isdisjoint(tracked)

        asked = [request.request_hash for request in project.requests[-len(values) :]]
        assert parts.requests(part).read_text().split() == asked

        now = prepare()
        assert now[older.index].equals(older) and len(now) == len(older) + len(values)
        assert len(state["parts"]) == len(state["files"]) == number and state["facts"]["rows"] == len(now)
        older = now
        project.commit(f"Retraining {number}")

    project.git("clone", "--quiet", ".", "../fresh")
    os.chdir("../fresh")
    assert prepare().equals(older)
    shutil.rmtree("data/prepared")
    subprocess.run([sys.executable, "-m", "breast_cancer.prepare"], check=True, capture_output=True)
    assert prepare().equals(older) and dvc.stale() == []


def test_a_table_that_a_person_replaces_has_no_parts(log: list[Labelled]) -> None:
    """The old parts leave the folder with the next retraining; rows of requests that were used do not come again."""
    project = Project("data/raw.csv", "../storage", log)
    project.ask(1.5, 2.5)
    ingest.update_tables(params.load())
    (old,) = json.loads(APPENDED.read_text())["files"]
    project.commit("Retraining")
    Path("data/raw.csv").unlink()
    csv_table(rows=50)
    assert len(prepare()) == 50
    project.commit("Another table")
    assert ingest.update_tables(params.load())["rows"] == 0
    project.ask(3.5)
    assert ingest.update_tables(params.load())["table_rows"] == 51
    state = json.loads(APPENDED.read_text())
    assert state["parts"] == [50] and len(state["files"]) == 1 and len(state["requests"]) == 3
    (part,) = state["files"]
    kept = {"README.md", part, parts.requests(Path(part)).name}
    assert {path.name for path in parts.FOLDER.iterdir()} == kept and old != part
    assert len(prepare()) == 51


def test_a_table_with_rows_in_the_file_gets_a_part_next(log: list[Labelled]) -> None:
    """As an earlier version of this package has left it: the rows that it appended keep their splits."""
    project = Project("data/raw.csv", "../storage", log)
    md5 = artifacts.tracked_md5(Path("data/raw.csv"))
    artifacts.write_json(APPENDED, {"table": md5, "parts": [40, 50], "until": None, "requests": {}})
    older = prepare()
    project.commit("As before")
    project.ask(1.5, 2.5, 3.5)
    ingest.update_tables(params.load())
    assert json.loads(APPENDED.read_text())["parts"] == [40, 50, ROWS]
    assert prepare()[older.index].equals(older) and artifacts.tracked_md5(Path("data/raw.csv")) == md5


def test_a_project_without_the_folder_is_told_how_to_make_it(log: list[Labelled]) -> None:
    project = Project("data/raw.csv", "../storage", log)
    Path("data/appended.dvc").unlink()
    project.ask(1.5)
    with pytest.raises(ProjectError, match=r"data/appended\.dvc is missing.*mkdir -p data/appended && dvc add"):
        ingest.update_tables(params.load())
