"""What `make pipeline` runs, on a small project: independent stages beside each other, and one training a change."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml
from gitops.core import artifacts, threads
from gitops.core.artifacts import ProjectError, digest
from gitops.integrations import dvc, dvc_repro, dvc_stages, mlflow_files, mlflow_server
from gitops.releases import trained
from gitops.reporting import context
from gitops.retraining import stages
from test_exported_program import MODELS
from test_verify import made as made
from test_verify import project as project
from verifying import Project

#: `evaluate` ends well only once `package` has ended, which does not depend on it.
WAITING = """
def evaluate():
    import time
    for _ in range(200):
        if Path("package/golden_response.json").exists():
            break
        time.sleep(0.1)
    else:
        sys.exit("package has not run beside evaluate")
    write("evaluation/metrics.json", "{}")
    write("evaluation/predictions.parquet", "")
    write("evaluation/plots/roc.csv", "")
    write("evaluation/explanations.json", "{}")

globals()[sys.argv[1]]()
"""


@pytest.fixture(autouse=True)
def _fresh(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that has the commit and the DVC remote."""
    monkeypatch.chdir(project.path)
    monkeypatch.setattr(mlflow_server, "problem", lambda: None)
    monkeypatch.setenv(mlflow_server.VARIABLE, "http://localhost:1")


def keep_what_is_shared(project: Project) -> None:
    """Leave of the DVC remote what is on it before a `make push`: the data, and what CI of a branch has shared."""
    data = load_yaml("data/raw.csv.dvc")["outs"][0]["md5"]
    for path in (project.path / "dvc-remote").rglob("*"):
        if path.is_file() and path.parent.name + path.name != data and "branches" not in path.parts:
            path.unlink()


def edit(project: Project, old: str, new: str) -> None:
    text = (project.path / "stages.py").read_text()
    assert text.count(old) == 1
    project.write("stages.py", text.replace(old, new))


def test_stages_that_do_not_depend_on_each_other_run_beside_each_other(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And those of a large table one after the other, as each holds it in memory."""
    edit(project, "globals()[sys.argv[1]]()\n", WAITING)
    around = dvc_stages.around("train")
    assert (around.before, around.after) == (["prepare"], ["evaluate", "validate_model"])
    assert sorted(around.beside) == ["package", "validate_data"]
    (project.path / "package/golden_response.json").unlink()
    assert dvc_repro.reproduce(around.after, "force", around.beside)
    assert not dvc_stages.runs("validate_model")
    monkeypatch.setattr(threads, "SMALL", 0)
    (project.path / "package/golden_response.json").unlink()
    edit(project, "range(200)", "range(2)")
    assert not dvc_repro.reproduce(around.after, "force", around.beside)
    assert "package has not run beside evaluate" in capfd.readouterr().err


def test_the_order_of_dvc_lock_is_that_of_the_stages(project: Project) -> None:
    (project.path / "dvc.lock").unlink()
    project.forget()
    assert stages.main() == 0
    assert [*dvc_stages.lock()] == [*load_yaml("dvc.yaml")["stages"]]


def test_what_needs_a_stage_that_is_out_of_date_is_out_of_date_too(project: Project) -> None:
    """DVC's status compares each stage with the files that lie here: those of the model that was."""
    assert stages.main() == 0
    assert dvc.stale() == []
    project.write("handler.py", "another handler")
    assert dvc.stale() == ["package"]
    project.write("train.py", "another model")
    found = dvc.stale()
    assert sorted(found) == ["evaluate", "package", "train", "validate_model"]
    assert found.index("evaluate") < found.index("validate_model")


@pytest.mark.parametrize("failing", ["evaluate", "package"])
def test_a_stage_that_fails_is_named_wherever_it_runs(failing: str, project: Project) -> None:
    """What ran beside it is kept."""
    edit(project, f"def {failing}():\n", f"def {failing}():\n    sys.exit('it broke')\n")
    with pytest.raises(ProjectError, match="a stage failed"):
        dvc_stages.reproduce(["evaluate", "validate_model"], ["package"])
    printed = artifacts.PIPELINE_LOG.read_text()
    assert f"ERROR: failed to reproduce '{failing}': failed to run: " in printed
    assert {"evaluate", "package"} <= {*re.findall("Running stage '(.*)'", printed)}
    found = context.failure([failing])
    assert found and found.stage == failing


@pytest.mark.parametrize("committed", [True, False])
def test_a_shared_model_is_taken_over_and_not_trained_again(
    committed: bool, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """This machine has never seen the inputs; dvc.lock is committed or not, and what it names was not pushed."""
    if not committed:
        (project.path / "dvc.lock").unlink()
    project.forget(cache=False)
    keep_what_is_shared(project)
    keep_what_is_shared(project)
    assert stages.main() == 0
    assert not project.trainings() and digest(artifacts.MODEL) == digest(project.honest)
    assert "the model of the branches' part of the DVC remote is taken over" in capfd.readouterr().out
    assert not dvc_stages.runs("train")


def test_what_is_here_is_not_looked_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a model that is up to date, nor one that the run cache has."""
    asked: list[Any] = []
    monkeypatch.setattr(stages.trained, "shared", lambda *arguments: asked.append(arguments) or iter(()))
    assert stages.main() == 0
    (project.path / "dvc.lock").unlink()
    project.forget()
    assert stages.main() == 0
    assert not asked and not project.trainings()
    project.write("train.py", f"{project.honest}\n")
    stages.main()
    assert len(asked) == 1


@pytest.mark.parametrize("why", ["other inputs", "a model that would run", "out of reach"])
def test_a_model_that_cannot_be_taken_over_is_trained(
    why: str, project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (project.path / "dvc.lock").unlink()
    project.forget(cache=False)
    keep_what_is_shared(project)
    (folder,) = (project.path / "dvc-remote/branches").iterdir()
    if why == "other inputs":
        folder.rename(folder.with_name("0" * 64))
    elif why == "a model that would run":
        hostile = MODELS["a call"](project.honest)
        text = (folder / trained.LOCK).read_text()
        md5s = [
            hashlib.md5(found, usedforsecurity=False).hexdigest() for found in (project.honest.read_bytes(), hostile)
        ]
        (folder / trained.LOCK).write_text(text.replace(*md5s))
        (folder / "model/model.pt2").write_bytes(hostile)
    else:

        def refused(*_: object) -> None:
            raise ProjectError("DVC cannot read its remote: no credentials")

        monkeypatch.setattr(stages.trained.dvc_remote, "download", refused)
    assert stages.main() == 0
    assert project.trainings() == 1 and digest(artifacts.MODEL) == digest(project.honest)
    printed = capfd.readouterr().out
    assert ("no shared model is taken over: " in printed) == (why != "other inputs")


def test_mlflows_database_is_made_while_the_first_stages_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `train` will need it, and only there."""
    monkeypatch.delenv(mlflow_server.VARIABLE)
    with stages.mlflow_made():
        assert not mlflow_files.DATABASE.exists()
    assert not mlflow_files.DATABASE.exists()  # the model is up to date
    (project.path / "dvc.lock").unlink()
    project.forget(cache=False)
    with stages.mlflow_made():
        assert mlflow_files.missing()
    with contextlib.closing(sqlite3.connect(mlflow_files.DATABASE)) as database:
        (place,) = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    assert Path(place.removeprefix("file://")) == Path("mlruns/0").resolve()
    assert [path.name for path in Path().glob("*mlflow*")] == ["mlflow.db"]
