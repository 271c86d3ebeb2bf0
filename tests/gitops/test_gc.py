"""`make gc` with the real DVC: what a release or a branch names stays in the remote, and nothing else that is old."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest
from gitops.integrations import dvc, dvc_contents, dvc_stages, git
from gitops.releases import gc, named, trained
from gitops.releases.record import RECORD, File, GateResult, Model, Release, Training

OLD = time.time() - 100 * 24 * 3600

PIPELINE = """
stages:
  train:
    cmd: cp source model
    deps: [source]
    outs: [model]
  evaluate:
    cmd: mkdir -p plots && cp model plots/a && tr a-z A-Z < model > plots/b
    deps: [model]
    outs: [plots]
"""


class Project:
    """A repository with a bare origin, a pipeline, and a folder as its DVC remote."""

    def __init__(self, folder: Path) -> None:
        self.remote, self.origin = folder / "remote", folder / "origin.git"
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.origin], check=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@localhost")
        self.git("remote", "add", "origin", str(self.origin))
        with Repo.init() as repository, repository.config.edit() as config:
            config["core"] = {"remote": "storage", "analytics": False}
            config["remote"]["storage"] = {"url": str(self.remote)}
        Path("dvc.yaml").write_text(PIPELINE)
        self.commit("main")
        self.train("first")
        self.commit("main")

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def train(self, text: str) -> str:
        """Make a model of the text, push all there is as a person does, and return the model's md5."""
        Path("source").write_text(text)
        with Repo() as repository:
            repository.reproduce()
        dvc.push()
        trained.share()
        return digest(Path("model"), "md5")

    def commit(self, branch: str, message: str = "Change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", f"HEAD:{branch}")
        return self.git("rev-parse", "HEAD")

    def forget(self) -> None:
        """Go back to main, whose results those in the workspace become."""
        self.git("checkout", "--quiet", "--force", "main")
        with Repo() as repository:
            repository.checkout(force=True)

    def release(self, md5: str, commit: str, appended: File | None = None, explanations: File | None = None) -> None:
        """Release a model: a commit of env/production with its record."""
        file = File(path="x", md5=md5)
        record = Release(
            commit=commit,
            model=Model(name="toy", version="1", sha256="0" * 64, md5=md5),
            package=file,
            predictions=file,
            explanations=explanations,
            test_md5=md5,
            data=file,
            appended=appended,
            params={},
            metrics={},
            mlflow_run_id=None,
            training=Training(trained_on="branch", inputs="1" * 64),
            image="image",
            gate=GateResult(accepted=True, mode="absolute", reason="Accepted."),
            previous=None,
        )
        commit = git.write_commit(git.write_tree({RECORD: record.model_dump_json().encode()}), None, "Release")
        git.push(commit, "env/production")

    def objects(self) -> set[str]:
        """Return the md5s that the remote has."""
        return {file.parent.name + file.name for file in (self.remote / "files/md5").rglob("*") if file.is_file()}

    def age(self) -> None:
        """Let everything in the remote be a hundred days old."""
        for path in self.remote.rglob("*"):
            os.utime(path, (OLD, OLD))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path)


def collect(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["gc", *arguments])
    gc.main()


def test_the_explanations_of_a_release_stay(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("explained").write_text("{}")
    dvc.add(Path("explained"))
    md5 = artifacts.tracked_md5(Path("explained"))
    dvc.push()
    explanations = File(path="explained", md5=md5)
    project.release(digest(Path("model"), "md5"), project.git("rev-parse", "HEAD"), explanations=explanations)
    Path("explained.dvc").unlink()
    project.age()
    collect(monkeypatch, "--yes")
    assert md5 in project.objects()


def test_the_rows_that_were_appended_to_a_releases_table_stay(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though neither a branch nor the commit of main that the release came from names them any more."""
    Path("parts").mkdir()
    Path("parts/a").write_text("a row")
    dvc.add(Path("parts"))
    md5, part = artifacts.tracked_md5(Path("parts")), digest(Path("parts/a"), "md5")
    dvc.push()
    project.release(
        digest(Path("model"), "md5"), project.git("rev-parse", "HEAD"), appended=File(path="parts", md5=md5)
    )
    Path("parts.dvc").unlink()
    project.age()
    collect(monkeypatch, "--yes")
    assert {md5, part} <= project.objects()


def test_only_what_nothing_names_goes(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not what main, a branch of origin, a tag or a release names; members of folders included."""
    first = digest(Path("model"), "md5")
    released = project.train("released")
    project.release(released, project.git("rev-parse", "HEAD"))
    project.forget()
    project.git("switch", "--quiet", "--create", "idea")
    proposed = project.train("proposed")
    project.commit("idea")
    project.git("switch", "--quiet", "main")
    project.git("branch", "--quiet", "-D", "idea")
    project.git("switch", "--quiet", "--create", "local")
    local = project.train("local")
    project.git("commit", "--quiet", "--all", "--message", "Local")
    project.git("tag", "kept")
    project.git("switch", "--quiet", "main")
    project.git("branch", "--quiet", "-D", "local")
    dropped = project.train("dropped")
    project.forget()
    project.age()
    before = project.objects()
    bundles = {path.name for path in (project.remote / "branches").iterdir()}
    collect(monkeypatch)
    assert project.objects() == before and "Nobody can be asked" in capsys.readouterr().out
    collect(monkeypatch, "--yes")
    assert {first, released, proposed, local} < project.objects() and dropped not in project.objects()
    assert len(before) - len(project.objects()) == 3 + 2  # all of the dropped one; of the released one the plots
    with Repo() as repository:
        repository.pull(force=True, all_branches=True, all_tags=True)
    left = {path.name for path in (project.remote / "branches").iterdir() if any(path.rglob("*.json"))}
    assert len(bundles) == 5 and len(left) == 3, "main's, the branch's and the tag's trainings are named by a dvc.lock"
    capsys.readouterr()
    collect(monkeypatch, "--yes")
    assert "goes: nothing" in capsys.readouterr().out


def test_what_is_young_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has pushed it, and will commit what names it."""
    dropped = project.train("dropped")
    project.forget()
    collect(monkeypatch, "--yes", "--days", "1")
    assert dropped in project.objects()


def test_the_workspace_names_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here = project.train("not committed yet")
    project.age()
    collect(monkeypatch, "--yes")
    assert here in project.objects()


def test_the_run_cache_names_nothing_that_is_gone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.train("dropped")
    project.forget()
    project.age()
    entries = dvc_contents.stored("runs")
    collect(monkeypatch, "--yes")
    assert len(entries) == 4 and len(dvc_contents.stored("runs")) == 2


def test_a_remote_of_two_projects_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take what only the other names."""
    (own,) = (project.remote / "projects").iterdir()
    assert own.name == project.git("rev-list", "--max-parents=0", "HEAD")
    (project.remote / "projects" / ("a" * 40)).write_text("other\n")
    project.train("dropped")
    project.forget()
    project.age()
    before = project.objects()
    with pytest.raises(ProjectError, match=r"used by another project too \(other\)"):
        collect(monkeypatch, "--yes")
    assert project.objects() == before


@pytest.mark.parametrize("broken", ["origin", "record", "folder", "shallow", "commit"])
def test_what_cannot_be_read_removes_nothing(project: Project, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    released = project.train("released")
    project.release(released, "0" * 40 if broken == "commit" else project.git("rev-parse", "HEAD"))
    project.forget()
    project.age()
    if broken == "origin":
        project.origin.rename(project.origin.with_suffix(".away"))
    elif broken == "record":
        tip = git.fetch("env/production")
        git.push(git.write_commit(git.write_tree({RECORD: b"{}"}), tip, "By hand"), "env/production")
    elif broken == "folder":
        (listing,) = (md5 for md5 in named.named().md5s if md5.endswith(".dir"))
        path = project.remote / "files/md5" / listing[:2] / listing[2:]
        path.chmod(0o644)
        path.write_text(json.dumps({"not": "a list"}))
    elif broken == "shallow":
        Path(".git/shallow").write_text(project.git("rev-parse", "HEAD") + "\n")
    before = project.objects()
    with pytest.raises(ProjectError):
        collect(monkeypatch, "--yes")
    assert project.objects() == before


def test_a_training_that_writes_a_folder_is_not_shared(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Main trains then: neither the folder's list of files nor half of them is taken for a model."""
    Path("dvc.yaml").write_text(
        "stages: {train: {cmd: mkdir -p model && cp source model/a, deps: [source], outs: [model]}}"
    )
    Path("model").unlink()
    with Repo() as repository:
        repository.reproduce()
    dvc.push()
    assert trained.share() is None and "name the files of model" in capsys.readouterr().out
    entry = dvc_stages.lock()["train"]
    (own,) = trained.claims(trained.inputs(entry), {"train": entry}, ["model"])
    assert not trained.take_over(own, trained.inputs(entry), ["model"])


def test_days(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        collect(monkeypatch, "--yes", "--days", "0")
