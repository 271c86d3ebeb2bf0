"""`make erase` as a whole, with the real DVC: nothing of a person is left, however often it is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from defaults import ROOT
from erasing import (
    ROWS,
    WHO,
    Project,
    csv_text,
    files,
    fill_log,
    holding,
    line,
    litter,
    run,
    settings,
    write_labels,
    write_log,
)
from erasing import here as here
from gitops.core import artifacts, params
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.integrations import dvc
from gitops.privacy import derived, erase, journal, label_rows, log_lines, report, rows
from gitops.retraining import retrain
from gitops.tabular import parts, table

#: Where the person's data may be after an erasure, as the report says: Git's history and the DVC remote.
NAMED = (".git", "../storage")


class Killed(BaseException):
    """As of a process that ends at once."""


def filled(path: str, person: str | None = "person") -> Project:
    """Return a project with a released table, rows appended to it, a log in every form, labels and results."""
    project = Project(path, person)
    fill_log()
    project.append()
    project.prepare()
    project.commit("Train")
    project.release()
    litter()
    return project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a project with a table in CSV, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "project").mkdir()
    before = Path.cwd()
    os.chdir(folder / "project")
    filled("data/raw.csv")
    os.chdir(before)
    return folder


@pytest.fixture
def project(made: Path, here: Path) -> Path:
    """A copy of it, which is the present folder."""
    here.rmdir()
    shutil.copytree(made, here.parent, dirs_exist_ok=True, symlinks=True)
    os.chdir(here)
    return here


def read() -> pd.DataFrame:
    """Return the table as training reads it."""
    return table.read(params.load().data)


def whole() -> dict[str, bytes]:
    """Return all files of the project but those of Git, and of DVC's own bookkeeping."""
    return {name: content for name, content in files(".").items() if not name.startswith((".git/", ".dvc/tmp/"))}


@pytest.mark.parametrize("path", ["data/raw.csv", "data/one.parquet", "data/folder"])
def test_nothing_is_left(
    here: Path, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In no file of the project, its cache, its log and its labels, but those that the report names."""
    project = filled(path)
    Path("data/draft.csv").write_text(f"x,person\n1,{WHO}\n")
    dvc.add(Path("data/draft.csv"))
    for name in ("data/draft.csv", "data/draft.csv.dvc"):  # what nothing names any more lies in DVC's cache
        Path(name).unlink()
    before, splits, starts = read(), project.splits(), json.loads(APPENDED.read_text())["parts"]
    assert starts == [ROWS] and len(before) == ROWS + 4 and (before["person"] == WHO).sum() == 4
    assert len(holding(WHO, ".", leave_out=NAMED)) > 12
    assert run(monkeypatch, f" {WHO} ", "--yes") == 0
    told = capsys.readouterr().out
    assert (
        f"table: 4 rows in {2 if path != 'data/folder' else 3} files" in told
        and "request log: 5 lines in 4 files" in told
    )

    assert holding(WHO, ".", leave_out=NAMED) == []
    assert holding("mine", ".", leave_out=NAMED) == []
    after = read()
    pd.testing.assert_frame_equal(after, before[before["person"] != WHO].reset_index(drop=True))
    if path.endswith(".csv"):
        lines = csv_text().split("\r\n")
        kept = [text for text in lines if not text.startswith(WHO)]
        assert Path(path).read_bytes().decode() == "\r\n".join(kept) and len(kept) == len(lines) - 2
    state = json.loads(APPENDED.read_text())
    assert parts.state(params.load().data) == state and state["parts"] == [ROWS - 2] and "facts" not in state
    assert len(state["requests"]) == 2 and len(state["files"]) == 1
    (part,) = [Path(each) for each in parts.files(params.load().data) if "appended-" in each]
    assert len(parts.requests(part).read_text().split()) == 2
    assert [*part.parent.glob("appended-*")] in ([part, parts.requests(part)], [parts.requests(part), part])

    text = report.REPORT.read_text()
    assert "| production | `" in text and "| yes |" in text and "run-1" in text and "as a word" not in text
    assert not journal.FOLDER.exists()
    folder = "data/appended" if path != "data/folder" else path
    project.git("restore", "data/.gitignore")
    assert set(project.git("status", "--porcelain").replace(" M ", "").replace("M ", "").split("\n")) == {
        f"{path}.dvc",
        f"{folder}.dvc",
        str(APPENDED),
    }
    new = project.prepare()
    assert len(new) == len(splits) - 4 and WHO not in set(new["person"])
    assert run(monkeypatch, WHO, "--yes") == 0 and "nothing of this ID is here any more" in capsys.readouterr().out


#: The steps of an erasure, and what a kill in the midst of one is.
STEPS: list[tuple[Any, str]] = [
    (label_rows, "erase"),
    (derived, "remove_results"),
    (journal, "replace"),
    (dvc, "add"),
    (artifacts, "write_json"),
    (derived, "forget"),
    (log_lines, "erase"),
    (report, "write"),
    (journal, "end"),
]


@pytest.mark.parametrize(("module", "name"), STEPS, ids=[f"{module.__name__}.{name}" for module, name in STEPS])
def test_killed_and_started_again(
    project: Path, module: Any, name: str, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each step, which is after the one before it: it ends in the same state, without a question."""
    step = getattr(module, name)

    def killed(*arguments: Any, **options: Any) -> Any:
        if name == "write_json" and arguments[0] != APPENDED:
            return step(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, name, killed)
        with pytest.raises(Killed):
            run(monkeypatch, WHO, "--yes")
    with pytest.raises(ProjectError, match="another ID was broken off"):
        run(monkeypatch, "other-1", "--yes")
    assert run(monkeypatch, WHO) == 0
    assert whole() == wanted and holding(WHO, ".", leave_out=NAMED) == []


@pytest.fixture(scope="module")
def wanted(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files after an erasure that was not killed."""
    folder, before = tmp_path_factory.mktemp("wanted"), Path.cwd()
    shutil.copytree(made, folder, dirs_exist_ok=True, symlinks=True)
    os.chdir(folder / "project")
    with pytest.MonkeyPatch.context() as patched:
        assert run(patched, WHO, "--yes") == 0
    found = whole()
    os.chdir(before)
    return found


def test_killed_before_it_was_decided(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has changed, and any id may be next."""
    before = whole()

    def killed(*_: Any) -> Any:
        raise Killed

    monkeypatch.setattr(rows, "_check_csv", killed)
    with pytest.raises(Killed):
        run(monkeypatch, WHO, "--yes")
    assert whole() == before
    monkeypatch.undo()
    os.chdir(project)
    with pytest.raises(ProjectError, match="nothing here has this ID"):
        run(monkeypatch, "nobody", "--yes")


def test_it_shows_and_asks(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody answers, or says no, nothing changes; neither what is shown nor the report has the id."""
    before = whole()
    assert run(monkeypatch, WHO) == 0
    told = capsys.readouterr().out
    assert "Nobody can be asked" in told and "labels: 2 labels in 1 file\n" in told and "production: model" in told
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer in ("n", ""):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert run(monkeypatch, WHO) == 0
    assert whole() == before
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert run(monkeypatch, WHO) == 0
    assert WHO not in told + capsys.readouterr().out + report.REPORT.read_text() and whole() != before


def test_an_id_that_nothing_has(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1: it may be misspelt. Nothing changes."""
    before = whole()
    for value in ("person-77@example.org", WHO[:-1], "0"):
        with pytest.raises(ProjectError, match="nothing here has this ID, as a value of person"):
            run(monkeypatch, value, "--yes")
    with pytest.raises(ProjectError, match="ID is not set"):
        run(monkeypatch, "  ", "--yes")
    with pytest.raises(ProjectError, match=r"a text of data\.missing"):
        run(monkeypatch, "NA", "--yes")
    assert whole() == before


def test_a_request_where_the_table_has_no_ids(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows that it became, by the hashes beside them, though others have equal values, and the log is gone."""
    project = Project("data/raw.csv", None)
    settings("data/raw.csv", None)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["data"]["drop"] = ["person"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    fill_log(who=None, request="mine")
    project.append()
    before = read()
    assert len(before) == ROWS + 4
    Path("labels/a.csv").unlink()
    shutil.rmtree("requests")
    write_log([line("before", None)])
    assert run(monkeypatch, "mine", "--yes") == 0
    told = capsys.readouterr().out
    assert "table: 1 row in 1 file\n" in told and "data/appended.json: 1 request\n" in told
    assert len(read()) == len(before) - 1 and read()["x"].tolist().count(1.25) == 1
    state = json.loads(APPENDED.read_text())
    assert state["parts"] == [ROWS] and len(state["requests"]) == 3
    with pytest.raises(ProjectError, match="as an id of a request"):
        run(monkeypatch, "nobody", "--yes")


def test_a_part_that_was_one_persons_goes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of no rows cannot be read. The next part keeps its rows, and its start."""
    project = Project("data/raw.csv")
    write_log([line("a", WHO)])
    write_labels(["a,yes"])
    project.append()
    write_log([line("b", "other-1", x=7.25)], "b.jsonl")
    write_labels(["a,yes", "b,no"])
    project.append()
    assert json.loads(APPENDED.read_text())["parts"] == [ROWS, ROWS + 1]
    assert run(monkeypatch, WHO, "--yes") == 0
    state = json.loads(APPENDED.read_text())
    assert state["parts"] == [ROWS - 2] and len(state["files"]) == 1 and read()["x"].tolist()[-1] == 7.25
    assert project.prepare()["x"].tolist().count(7.25) == 1, "its rows are in a split"


def test_a_table_of_one_person_is_left_to_people(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Project("data/raw.csv")
    Path("data/raw.csv").write_text(f"person,x,note,y\n{WHO},1.5,a,yes\n")
    dvc.add(Path("data/raw.csv"))
    before = whole()
    with pytest.raises(ProjectError, match="would have no row left"):
        run(monkeypatch, WHO, "--yes")
    assert whole() == before


def test_which_releases_were_trained_with_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of tables that are only in the remote; of one that nobody has it is not known."""
    project = Project("data/raw.csv")
    old = artifacts.tracked_md5(Path("data/raw.csv"))
    commits = [project.release()]
    for text in ("person,x,note,y\n", f"person,x,note,y\n{WHO},0.5,b,no\n"):
        lines = [f"other-{row},{row}.5,{'ab'[row % 2]},{'yes' if row % 3 else 'no'}\n" for row in range(40)]
        Path("data/raw.csv").write_text(text + "".join(lines))
        dvc.add(Path("data/raw.csv"))
        project.commit("Another table")
        commits.append(project.release())
    last = artifacts.tracked_md5(Path("data/raw.csv"))
    shutil.rmtree(".dvc/cache/files")
    for path in (dvc.cached(last), Path("../storage/files/md5", last[:2], last[2:])):
        path.unlink(missing_ok=True)
    assert run(monkeypatch, WHO, "--yes") == 0
    told = capsys.readouterr().out
    assert "held it, or cannot be had: 2 of 3" in told and "1 of 4 hold it, 1 cannot be had" in told
    rows_ = [each for each in report.REPORT.read_text().splitlines() if each.startswith("| production")]
    assert [(each.split("`")[3], each.rsplit("|", 2)[1].strip()) for each in rows_] == [
        (commits[0][:12], "yes"),
        (commits[1][:12], "no"),
        (commits[2][:12], "not known"),
    ]
    assert f"files/md5/{old[:2]}/{old[2:]}" in report.REPORT.read_text()
    assert not dvc.cached(old).exists()


@pytest.mark.parametrize("why", ["redacted", "not given"])
def test_a_log_without_ids_is_said(
    here: Path, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its requests can be named instead."""
    Project("data/raw.csv")
    write_log([line("a", "redacted" if why == "redacted" else None)])
    if why == "redacted":
        values = yaml.safe_load(Path("params.yaml").read_text())
        values["request_log"]["redact"] = ["person"]
        Path("params.yaml").write_text(yaml.safe_dump(values))
    run(monkeypatch, WHO)
    assert "cannot be found by person, because" in capsys.readouterr().out
    assert run(monkeypatch, "a", "--request", "--yes") == 0
    assert holding('"a"', "requests") == [] and "request log: 1 line in 1 file\n" in capsys.readouterr().out


def test_tables_that_are_not_this_projects_to_change(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An import is erased at its source; a pattern of files, or object storage, where it is."""
    Project("data/raw.csv")
    pointer = Path("data/raw.csv.dvc")
    pointer.write_text("deps:\n- path: ../source.csv\n" + pointer.read_text())
    before = Path("data/raw.csv").read_bytes()
    write_log([line("a", WHO)])
    assert run(monkeypatch, WHO, "--yes") == 0
    assert "is imported: erase the rows in its source" in capsys.readouterr().out
    assert Path("data/raw.csv").read_bytes() == before and holding(WHO, "requests") == []
    settings("data/*.parquet")
    write_log([line("a", WHO)])
    assert run(monkeypatch, WHO, "--yes") == 0
    assert "in a database or in object storage" in capsys.readouterr().out


def test_other_files_of_the_project_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people to decide, without the id, should a name hold it."""
    Project("data/raw.csv")
    for name in ("docs/notes.md", f"{WHO}.txt", "others.md"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("x" + WHO if name == "others.md" else f"We asked {WHO}.")
    assert run(monkeypatch, WHO, "--yes") == 0
    told = capsys.readouterr().out + report.REPORT.read_text()
    assert "hold it as a word: docs/notes.md, ….txt." in told and WHO not in told
    assert holding(WHO, ".", leave_out=NAMED) == ["docs/notes.md", "others.md", f"{WHO}.txt"]


def test_a_retraining_keeps_it_waiting(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with retrain.lock(), pytest.raises(ProjectError, match="another `make retrain` is running"):
        run(monkeypatch, WHO, "--yes")


def test_make_hands_any_id_on(here: Path) -> None:
    """Make expands nothing in it, and no shell sees it."""
    shutil.copy(ROOT / "Makefile", here)
    value = "a$b$(shell touch pwned)`touch pwned`'\"\\ #;\n-x %"
    python = f"{sys.executable} -c 'import os; print(ascii(os.environ[\"ID\"]))' #"
    for command, variables in ((["make", f"ID={value}"], {}), (["make"], {"ID": value})):
        options = ["--silent", "erase", f"RUN={python}", "ENVIRONMENTS=true"]
        environment = os.environ | variables
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ascii(value)
    assert not Path("pwned").exists()


def test_every_step_is_one_that_can_be_killed() -> None:
    """A step that is added to `finish` is added to STEPS."""
    source = Path(erase.__file__).read_text().partition("def finish(")[2].partition("\n\n\n")[0]
    named = {f"{module.__name__.rpartition('.')[2]}.{name}(" for module, name in STEPS}
    steps = [text.strip() for text in source.splitlines()[2:] if text.strip() and "online" not in text]
    assert all(text.startswith(tuple(named)) for text in steps) and len(steps) == 7
