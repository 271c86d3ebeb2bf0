"""The table's files: which belong to it, what is written into a new one, and what DVC and Git then have to store."""

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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from defaults import complete
from dvc.repo import Repo
from gitops.core import artifacts, params
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.core.sections import Data
from gitops.integrations import dvc
from gitops.monitoring import ground_truth
from gitops.monitoring.ground_truth import Found, Labelled
from gitops.retraining import candidate, facts, ingest
from gitops.tabular import append, parts, table
from table_cases import settings

#: Rows of the tables here.
ROWS = 60

#: A value that no other cell has: where it may not be, it must not be found.
MARK = "7654321.25"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own, which is left again however the test has changed it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()


def write_state(path: Path, **more: Any) -> None:
    artifacts.write_json(APPENDED, {"table": artifacts.tracked_md5(path), "parts": [], "files": [], **more})


def csv_table(path: Path = Path("data/raw.csv"), rows: int = ROWS) -> Path:
    lines = [f"{row}.5,{'ab'[row % 2]},{row % 7},{'yes' if row % 3 else 'no'}" for row in range(rows)]
    path.write_text("\n".join(["x,note,count,y", *lines]))  # no line end after the last row
    return path


def part(name: str, text: str = "x,note,count,y\n1.5,a,1,yes\n") -> Path:
    parts.FOLDER.mkdir(exist_ok=True)
    (parts.FOLDER / name).write_text(text)
    return parts.FOLDER / name


def test_a_table_without_parts_is_its_file() -> None:
    data = settings(csv_table())
    assert (parts.files(data), parts.starts(data), parts.version(data)) == (["data/raw.csv"], [], None)
    part("README.md")
    write_state(Path(data.path))
    assert (parts.files(data), parts.version(data)) == (["data/raw.csv"], None)


def test_parts_come_in_the_order_in_which_they_were_appended() -> None:
    data = settings(csv_table())
    for name in ("b.csv", "a.csv", "not listed.csv"):
        part(name)
    write_state(Path(data.path), parts=[ROWS, ROWS + 1], files=["b.csv", "a.csv"])
    assert parts.files(data) == ["data/raw.csv", "data/appended/b.csv", "data/appended/a.csv"]
    assert parts.starts(data) == [ROWS, ROWS + 1] and len(table.read(data)) == ROWS + 2


def test_the_parts_of_a_table_that_was_replaced_do_not_count() -> None:
    data = settings(csv_table())
    part("a.csv")
    write_state(Path(data.path), parts=[ROWS], files=["a.csv"])
    assert parts.unused(data) == []
    csv_table(rows=50)
    assert (parts.files(data), parts.starts(data)) == (["data/raw.csv"], []) and parts.unused(data) == ["a.csv"]


def test_rows_that_an_earlier_version_appended_lie_in_the_file() -> None:
    data = settings(csv_table())
    artifacts.write_json(APPENDED, {"table": artifacts.tracked_md5(Path(data.path)), "parts": [40]})
    assert (parts.files(data), parts.starts(data)) == (["data/raw.csv"], [40])


def test_a_part_that_is_missing_is_an_error() -> None:
    """Not a smaller table: as where a merge has taken the two files of different commits."""
    data = settings(csv_table())
    write_state(Path(data.path), parts=[ROWS], files=["a.csv"])
    with pytest.raises(ProjectError, match=r"data/appended/a\.csv, .*, is missing: `dvc pull data/appended\.dvc` gets"):
        parts.files(data)


def test_a_folder_has_its_appended_files_last(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("data/raw.parquet")
    folder.mkdir(parents=True)
    for name in ("z.parquet", "appended-0001-0.parquet", "b.parquet", "_metadata.parquet", "note.txt"):
        (folder / name).write_bytes(b"")
    Path("data/raw.parquet.dvc").write_text("outs:\n- md5: 0123.dir\n  path: raw.parquet\n")
    data = settings(folder)
    write_state(folder, parts=[5], files=["appended-0001-0.parquet"])
    names = ["b.parquet", "z.parquet", "appended-0001-0.parquet"]
    assert parts.files(data) == [f"data/raw.parquet/{name}" for name in names]
    assert (parts.folder(data), parts.version(data), parts.md5(data)) == (folder, None, "0123.dir")


@pytest.mark.parametrize("path", ["s3://bucket/table.parquet", "data/2026-*.parquet"])
def test_nothing_is_appended_to_a_pattern_or_to_object_storage(path: str) -> None:
    data = settings(csv_table()).model_copy(update={"path": path})
    assert (parts.files(data), parts.starts(data)) == ([path], [])


def tables() -> dict[str, Any]:
    days = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    return {
        "id": pa.array([f"p{row // 2}" for row in range(ROWS)]),
        "when": pa.array([f"{day:%Y-%m-%dT%H:%M:%S}" for day in days]),
        "whole": pa.array([row % 9 for row in range(ROWS)], pa.int32()),
        "gaps": pa.array([None if row % 5 else row for row in range(ROWS)], pa.int64()),
        "code": pa.array([row % 4 for row in range(ROWS)], pa.int8()),
        "flag": pa.array([None, True, False] * (ROWS // 3)),
        "day": pa.array(days.date),
        "colour": pa.array(["red", "blue", None] * (ROWS // 3)).dictionary_encode(),
        "junk": pa.array([[1]] * ROWS),
        " y ": pa.array(["yes", "no", "NA"] * (ROWS // 3)).dictionary_encode(),
    }


NAMED = {"id": "id", "timestamp": "when", "categorical": ["code"], "drop": ["junk"], "missing_target": ["NA"]}


def typed(path: Path = Path("data/raw.parquet"), **columns: Any) -> Data:
    pq.write_table(pa.table(tables() | columns), path, row_group_size=7)
    return settings(path, **NAMED, max_lost=0.5)


def test_facts_of_parquet_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reading its rows."""
    data = typed()
    frame = table.read(data)
    monkeypatch.setattr(table, "read", lambda _: pytest.fail("the table was read"))
    found = facts.of(data)
    assert found.dtypes == {name: table.dtype(frame[name]) for name in frame}
    assert (found.rows, found.classes) == (ROWS, ["no", "yes"])
    regression = data.model_copy(update={"task": "regression", "target": "whole"})
    assert facts.of(regression).dtypes["whole"] == "number" and facts.of(regression).classes == []


def test_facts_that_are_kept_are_used_while_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = settings(csv_table())
    found = facts.of(data)
    assert found == facts.Facts(
        ROWS, {"x": "number", "note": "category", "count": "number", "y": "category"}, ["no", "yes"]
    )
    write_state(Path(data.path), facts=facts.kept(found.grown(3), data))
    read = table.read
    monkeypatch.setattr(table, "read", lambda _: pytest.fail("the table was read"))
    assert facts.of(data) == found.grown(3)
    monkeypatch.setattr(table, "read", read)
    changed = data.model_copy(update={"categorical": ["count"]})
    assert facts.of(changed).dtypes["count"] == "category" and facts.of(changed).rows == ROWS
    csv_table(rows=50)
    assert facts.of(data).rows == 50


def test_an_error_names_the_part_and_the_line_in_it() -> None:
    data = settings(csv_table())
    part("a.csv", "x,note,count,y\n1.5,a,1,yes\n1.5,a,9007199254740993,yes\n")
    write_state(Path(data.path), parts=[ROWS], files=["a.csv"])
    with pytest.raises(ProjectError, match=r"column 'count' of .* the first is line 3 of data/appended/a\.csv"):
        table.read(data)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"x": 2**53 + 1}, r"column 'x' of .* holds whole numbers beyond 2\*\*53"),
        ({"count": "many"}, r"change the dtype of columns of data/raw\.csv: count"),
        ({"x": True, "count": False}, r"change the dtype of columns of data/raw\.csv: x, count"),
    ],
)
def test_rows_that_would_change_a_dtype_are_refused(row: dict[str, Any], said: str) -> None:
    data = settings(csv_table())
    with pytest.raises(ProjectError, match=said):
        append.append(data, [{"note": "a", "y": "yes", **row}], facts.of(data).dtypes, 1)
    assert not parts.FOLDER.exists()


def test_texts_that_are_numbers_do_not_change_a_category() -> None:
    """And what is missing in all rows of a part changes nothing."""
    data = settings(csv_table())
    found = facts.of(data)
    rows = [{"note": str(number), "y": "yes"} for number in (1, 2, "3,5")]
    added = append.append(data, rows, found.dtypes, 1)
    write_state(Path(data.path), parts=[ROWS], files=[added.name])
    frame = table.read(data)
    assert frame["note"].tolist()[ROWS:] == ["1", "2", "3,5"] and frame["x"].isna().sum() == 3


def test_parts_of_parquet_keep_the_types_and_widen_whole_numbers() -> None:
    data = typed()
    found = facts.of(data)
    row = {"id": "p1", "when": datetime(2026, 1, 1, tzinfo=UTC), "day": datetime(2026, 1, 2), "code": "3", "y": "no"}
    for number, more in ((1, {"whole": 4.0, "gaps": 2}), (2, {"whole": 2.5, "flag": True, "colour": "green"})):
        added = append.append(data, [row | more], found.dtypes, number)
        names = [*parts.everything().get("files", []), added.name]
        write_state(Path(data.path), files=names)
    first, second = (pq.read_schema(parts.FOLDER / name) for name in names)
    assert (first.field("whole").type, second.field("whole").type) == (pa.int32(), pa.float64())
    assert first.equals(pq.read_schema(data.path)) and second.names == first.names
    frame = table.read(data)
    assert frame["whole"].tolist()[ROWS:] == [4.0, 2.5] and frame["colour"].tolist()[ROWS:] == [None, "green"]
    assert {name: table.dtype(frame[name]) for name in frame} == found.dtypes


@pytest.mark.parametrize("value", [1e300, 300, -1])
def test_a_number_that_the_type_cannot_hold_does_not_fit(value: Any) -> None:
    assert not append.fits(value, pa.uint8()) and append.fits(2.5, pa.uint8()) and append.fits(None, pa.uint8())


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
        part = artifacts.digest(folder / state["files"][-1], "md5")
        new = {md5: size for md5, size in project.objects().items() if md5 not in stored}
        assert {*new} == {part, update["after"]} and stored.items() <= project.objects().items()
        handed = {path.as_posix() for path in candidate.new_objects(pointers)}
        here = {f"dvc-remote/files/md5/{md5[:2]}/{md5[2:]}" for md5 in new} if remote == "dvc-remote" else set()
        assert handed == here == project.changed() - {*map(str, pointers)} and handed.isdisjoint(tracked)

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
    assert {path.name for path in parts.FOLDER.iterdir()} == {"README.md", *state["files"]} and old != state["files"][0]
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
