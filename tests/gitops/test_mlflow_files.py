"""MLflow's files, which its database names by absolute paths: where a project was moved, and in odd places."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from gitops.integrations import mlflow_files, tracking

#: Logs a file in a run, in the run that is named or a new one, and prints the run's id.
LOG = """
import sys
from types import SimpleNamespace
from pathlib import Path
from gitops.integrations import tracking
mlflow, _ = tracking.connect(SimpleNamespace(package=SimpleNamespace(model_name="toy")))
Path("note.txt").write_text("x")
with mlflow.start_run(run_id=sys.argv[1] if len(sys.argv) > 1 else None) as run:
    mlflow.log_artifact("note.txt")
    print(run.info.run_id)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder with an odd name, without a run yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "50% größer ß"
    folder.mkdir()
    return folder


def log(folder: Path, *run: str) -> str:
    command = [sys.executable, "-c", LOG, *run]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def places(folder: Path) -> list[str]:
    """Return every path of a file that the database names."""
    database = sqlite3.connect(folder / "mlflow.db")
    found = [row for table, column in mlflow_files.PLACES for row in database.execute(f"SELECT {column} FROM {table}")]
    database.close()
    return [place for (place,) in found]


def test_a_moved_project_has_its_files_where_it_is(project: Path, tmp_path: Path) -> None:
    """What was logged is found, what is logged comes there, to old runs too, and nothing to the old place."""
    run = log(project)
    moved = project.rename(tmp_path / "elsewhere")
    assert log(moved, run) == run
    later = log(moved)
    assert not project.exists()
    assert all(place.startswith(f"{moved}/mlruns/") for place in places(moved))
    assert sorted(path.parts[-3] for path in moved.glob("mlruns/1/*/artifacts/note.txt")) == sorted([run, later])


def test_what_lies_elsewhere_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The places of another store, of a server, and of a folder whose name begins like the old one."""
    monkeypatch.chdir(tmp_path)
    mlflow_files.follow_move()
    rows = {"0": "/old/mlruns/0", "1": "/old/mlruns/1", "2": "/old/mlruns-2/2", "3": "s3://bucket/mlruns/3"}
    database = sqlite3.connect("mlflow.db")
    mlflow_files.follow_move()  # as MLflow creates it
    database.execute("CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT)")
    mlflow_files.follow_move()
    database.executemany("INSERT INTO experiments VALUES (?, ?)", rows.items())
    database.commit()
    mlflow_files.follow_move()
    found = dict(database.execute("SELECT experiment_id, artifact_location FROM experiments"))
    assert found == {0: f"{tmp_path}/mlruns/0", 1: f"{tmp_path}/mlruns/1", 2: rows["2"], 3: rows["3"]}
    assert "the project was in /old: " in capsys.readouterr().out
    mlflow_files.follow_move()
    assert capsys.readouterr().out == ""
    database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/' || experiment_id")
    database.commit()
    mlflow_files.follow_move()
    assert dict(database.execute("SELECT * FROM experiments"))[1] == "mlflow-artifacts:/1"


def test_a_database_elsewhere_is_left_alone(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(project)
    before = places(project)
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/another.db")
    monkeypatch.chdir(moved)
    tracking.load()
    assert places(moved) == before


def test_mlflow_creates_its_database_where_its_own_path_has_a_percent_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its migrations lie in the environment, whose path they give to ConfigParser."""
    from alembic.config import Config

    monkeypatch.setattr(Config, "set_main_option", Config.set_main_option)  # put back after the test
    scripts = tmp_path / "50% größer"
    scripts.mkdir()
    with pytest.raises(ValueError, match="invalid interpolation"):
        Config().set_main_option("script_location", str(scripts))
    monkeypatch.setattr(sys, "prefix", str(scripts))
    mlflow_files.allow_percent()
    settings = Config()
    settings.set_main_option("script_location", str(scripts))
    settings.set_main_option("sqlalchemy.url", "sqlite:///50%%/x.db")  # MLflow has escaped it
    assert settings.get_main_option("script_location") == str(scripts)
    assert settings.get_main_option("sqlalchemy.url") == "sqlite:///50%/x.db"
