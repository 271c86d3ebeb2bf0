"""`make verify`: what a branch brings is a claim, in dvc.lock, DVC's cache, the remote and the model file alike."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_model
from github_server import GitHub
from gitops.core.artifacts import ProjectError, digest
from gitops.deployment import claims
from gitops.integrations import dvc, dvc_stages
from gitops.releases import trained, workspace
from gitops.releases.record import Candidate, Model, Training
from gitops.releases.trained import Claim
from test_exported_program import MODELS
from verifying import STAGES, Project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose branch has run everything, committed dvc.lock and pushed. Not to be changed by a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        project = Project(tmp_path_factory.mktemp("verify"))
        patch.setenv("TRAINED", str(project.trained))
        project.pipeline()
        project.commit("Train")
        with contextlib.chdir(project.path):
            trained.push()
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, in which a test may do anything."""
    copy = Project.__new__(Project)
    copy.path, copy.trained, copy.honest = tmp_path / "project", tmp_path / "trained", made.honest
    shutil.copytree(made.path, copy.path)
    monkeypatch.setenv("TRAINED", str(copy.trained))
    monkeypatch.setenv("TRAIN_ON_MAIN", "")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    return copy


def object_of(path: Path) -> str:
    """Return where DVC keeps a file's contents."""
    md5 = digest(path, "md5")
    return f"{md5[:2]}/{md5[2:]}"


def scored(text: bytes, value: float) -> bytes:
    found = json.loads(text)
    found["metrics"]["roc_auc"]["value"] += value
    return json.dumps(found).encode()


def parquet(path: Path, column: str, value: float) -> bytes:
    buffer = io.BytesIO()
    pd.read_parquet(path).assign(**{column: value}).to_parquet(buffer, index=False)
    return buffer.getvalue()


def archive(handler: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(zipfile.ZipInfo("handler.py"), handler)
    return buffer.getvalue()


def plots(project: Project, score: str, name: str) -> bytes:
    """Return the listing of a folder of plots with another curve, whose object is in the cache."""
    content = f"fpr,tpr\n0,{score}\n".encode()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    project.plant(md5, content)
    return json.dumps([{"md5": md5, "relpath": name}]).encode()


#: Attack: the stage and the file whose result is forged, and the contents by the honest ones.
FORGED: dict[str, tuple[str, str, Any]] = {
    "metrics": ("evaluate", "evaluation/metrics.json", lambda path: scored(path.read_bytes(), 1e-5)),
    "predictions": ("evaluate", "evaluation/predictions.parquet", lambda path: parquet(path, "p", 0.5)),
    "test split": ("prepare", "data/prepared/test.parquet", lambda path: parquet(path, "x", 1.0)),
    "schema": ("prepare", "data/prepared/schema.json", lambda path: b'{"rows": {"raw": 41}, "features": []}'),
    "data's verdict": ("validate_data", "reports/validate_data.json", lambda path: b'{"passed": true}'),
    "model's verdict": (
        "validate_model",
        "reports/validate_model.json",
        lambda path: path.read_bytes().replace(b'"status": "passed"', b'"status": "warned"'),
    ),
    "archive": ("package", "package/toy.mar", lambda path: archive("# another handler\n")),
    "golden answer": ("package", "package/golden_response.json", lambda path: b'{"predictions": [0.75]}'),
    "not JSON": ("evaluate", "evaluation/metrics.json", lambda path: b"[" * 100_000),
}


@pytest.mark.parametrize("attack", FORGED)
def test_a_forged_result_is_refused_by_name(attack: str, project: Project) -> None:
    stage, path, contents = FORGED[attack]
    with contextlib.chdir(project.path):
        own = dvc_stages.lock()
        project.forge(stage, path, contents(Path(path)))
        claim = Claim("dvc.lock", dvc_stages.lock(), lambda _, md5: dvc.fetch(md5))
        (difference,), compared = claims.differences([claim], own)
    assert difference.startswith(f"{path}, by dvc.lock: ") and compared == 1


@pytest.mark.parametrize(("name", "differing"), [("roc.csv", 1), ("../../../secret.csv", 0)])
def test_a_forged_curve_is_refused_and_no_other_file_is_read(name: str, differing: int, project: Project) -> None:
    with contextlib.chdir(project.path):
        own = dvc_stages.lock()
        (project.path.parent / "secret.csv").write_text("fpr,tpr\n0,12345\n")
        listing = plots(project, "0.999", name)
        project.forge("evaluate", "evaluation/plots", listing, ".dir")
        claim = Claim("dvc.lock", dvc_stages.lock(), lambda _, md5: dvc.fetch(md5))
        found, _ = claims.differences([claim], own)
    assert [line.partition(",")[0] for line in found] == ["evaluation/plots/roc.csv"] * differing


@pytest.mark.parametrize(
    ("path", "contents"),
    [
        ("evaluation/metrics.json", lambda path: scored(path.read_bytes(), 1e-7)),
        ("reports/validate_model.json", lambda path: path.read_bytes().replace(b"0.12", b"0.13")),
        ("reports/validate_data.html", lambda path: b"<html>"),
        ("evaluation/explanations.json", lambda path: path.read_bytes().replace(b"0.25", b"0.2501")),
    ],
)
def test_rounding_words_html_and_explanations_may_differ(path: str, contents: Any, project: Project) -> None:
    stage = next(name for name, (_, outs) in STAGES.items() if path in outs)
    with contextlib.chdir(project.path):
        own = dvc_stages.lock()
        project.forge(stage, path, contents(Path(path)))
        claim = Claim("dvc.lock", dvc_stages.lock(), lambda _, md5: dvc.fetch(md5))
        assert claims.differences([claim], own)[0] == []


def test_main_takes_the_model_and_computes_the_rest(project: Project) -> None:
    """From dvc.lock; and where that was not committed, from the branches' part of the remote."""
    for source in ("dvc.lock", "the branches' part of the DVC remote"):
        project.forget(cache=False)
        found = project.verify()
        assert (found["trained_on"], found["source"], project.trainings()) == ("branch", source, 0)
        assert found["model_sha256"] == digest(project.honest)
        assert project.json("evaluation/metrics.json")["model_sha256"] == found["model_sha256"]
        project.git("rm", "--quiet", "--force", "--ignore-unmatch", "dvc.lock")
        project.commit("Do not commit the lock")


def test_the_model_comes_from_an_artifact_of_a_run(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the DVC remote is a folder that ended with the runner. A fork's do not count, nor do expired ones."""
    (shared,) = (project.path / "dvc-remote/branches").iterdir()
    contents = io.BytesIO()
    with zipfile.ZipFile(contents, "w") as made:
        for path in shared.rglob("*"):
            if path.is_file():
                made.write(path, path.relative_to(shared))
        made.writestr("../outside", "x")
        made.writestr("stages.py", "import os")
    shutil.rmtree(project.path / "dvc-remote/branches")
    project.git("rm", "--quiet", "dvc.lock")
    project.commit("Do not commit the lock")
    project.forget()
    with GitHub(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.store(f"trained-{shared.name}", b"a fork's", fork=True)
        server.store(f"trained-{shared.name}", b"expired", expired=True)
        server.store(f"trained-{shared.name}", contents.getvalue())
        server.store("trained-other", b"another")
        found = project.verify()
    assert (found["trained_on"], found["source"], project.trainings()) == ("branch", "the artifact of a run", 0)
    assert not list(tmp_path.rglob("outside")) and project.git("status", "--porcelain") == "?? dvc.lock"


@pytest.mark.parametrize(("options", "folders"), [([], {"branches"}), (["--dvc"], {"branches", "files", "runs"})])
def test_a_branch_in_ci_writes_in_the_branches_part_alone(
    options: list[str], folders: set[str], project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make share` gives main what it takes over, by a role that may write nowhere else; `make push` is for people."""
    remote = project.path / "dvc-remote"
    data = remote / "files/md5" / object_of(project.path / "data/raw.csv")
    data.rename(tmp_path / "data")
    shutil.rmtree(remote)
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setattr("sys.argv", ["trained", *options])
    with contextlib.chdir(project.path):
        trained.main()
    assert {path.name for path in remote.iterdir()} == folders
    (shared,) = (remote / "branches").iterdir()
    assert f"\n{shared.name}\n" in output.read_text()
    data.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "data", data)
    project.forget(cache=False)
    assert (project.verify()["trained_on"], project.trainings()) == ("branch", 0)


def test_only_what_was_verified_is_released(project: Project) -> None:
    """A release asks for the verification of just these results, and records where the model was trained."""
    model = Model(name="toy", version="1", sha256=digest(project.honest), md5="0" * 32)
    candidate = Candidate.model_construct(model=model)
    with contextlib.chdir(project.path):
        with pytest.raises(ProjectError, match=r"reports/verification.json is missing: run `make verify` first"):
            workspace.verified(candidate)
        found = project.verify()
        training = workspace.verified(candidate).training
        assert training == Training(trained_on="branch", inputs=found["training_inputs"])
        other = candidate.model_copy(update={"model": model.model_copy(update={"sha256": "1" * 64})})
        with pytest.raises(ProjectError, match=r"about other results than those here: run `make verify` again"):
            workspace.verified(other)
        dvc_stages.reproduce(["evaluate"])
        project.forge("evaluate", "evaluation/metrics.json", b"{}")
        with pytest.raises(ProjectError, match=r"about other results than those here: run `make verify` again"):
            workspace.verified(candidate)


def test_forged_metrics_release_nothing(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changed lines of dvc.lock and an object: nothing is verified, and the workspace holds main's own results."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    honest = (project.path / "evaluation/metrics.json").read_bytes()
    project.forge("evaluate", "evaluation/metrics.json", scored(honest, 0.3))
    project.commit("Look better")
    project.forget()
    (project.path / "reports").mkdir()
    (project.path / "reports/gate.json").write_text('{"accepted": true}')
    with pytest.raises(ProjectError, match=r"evaluation/metrics.json, by dvc.lock: metrics.roc_auc.value is"):
        project.verify()
    assert (project.path / "evaluation/metrics.json").read_bytes() == honest
    assert not (project.path / "reports/verification.json").exists()
    assert not (project.path / "reports/gate.json").exists()
    assert "evaluation/metrics.json" in (tmp_path / "summary").read_text()


def test_a_lock_of_another_commit_says_nothing(project: Project) -> None:
    """Nor do the run cache and objects in the remote: what differs in its inputs is trained and computed here."""
    project.write("data/raw.csv", "x,y\n" + "".join(f"{row},{row % 2}\n" for row in range(44)))
    with contextlib.chdir(project.path):
        dvc.add(Path("data/raw.csv"))
    project.commit("More rows, and the lock of before")
    project.forget()
    found = project.verify()
    assert (found["trained_on"], found["compared"], project.trainings()) == ("main", 0, 1)
    assert project.json("data/prepared/schema.json")["rows"]["raw"] == 44


def test_a_forged_entry_of_the_run_cache_is_not_read(project: Project) -> None:
    (entry, *_) = [
        path
        for path in (project.path / ".dvc/cache/runs").rglob("*")
        if path.is_file() and "metrics" in path.read_text()
    ]
    forged = b'{"metrics": {"roc_auc": {"value": 1.0}}}'
    (project.path / "forged").write_bytes(forged)
    md5, old = digest(project.path / "forged", "md5"), digest(project.path / "evaluation/metrics.json", "md5")
    (project.path / "forged").unlink()
    project.plant(md5, forged)
    entry.chmod(0o644)
    entry.write_text(entry.read_text().replace(old, md5))
    shutil.copytree(project.path / ".dvc/cache/runs", project.path / "dvc-remote/runs", dirs_exist_ok=True)
    project.git("rm", "--quiet", "--force", "dvc.lock")
    project.commit("Leave it to the run cache")
    project.forget()
    project.verify()
    assert digest(project.path / "evaluation/metrics.json", "md5") == old


@pytest.mark.parametrize("name", ["data/raw.csv", "package/toy.mar"])
def test_an_object_with_other_contents_than_its_name_says(name: str, project: Project) -> None:
    """Neither the table nor what the release will be fetched by is taken from it, nor left in the remote."""
    md5 = digest(project.path / name, "md5")
    project.plant(md5, b"x,y\n1,1\n")
    project.forget()
    (project.path / "data/raw.csv").unlink()
    with pytest.raises(ProjectError, match=md5):
        project.verify()


def test_what_main_pushes_replaces_what_was_planted_in_the_remote(project: Project) -> None:
    from gitops.integrations import dvc_remote

    path = project.path / "package/toy.mar"
    md5 = digest(path, "md5")
    with contextlib.chdir(project.path):
        dvc.push()
        planted = project.path / "dvc-remote/files/md5" / md5[:2] / md5[2:]
        planted.chmod(0o644)
        planted.write_bytes(archive("# another handler\n"))
        planted.chmod(0o444)
        dvc.push()
        assert digest(planted, "md5") != md5
        assert dvc_remote.ensure([md5]) == [md5] and dvc_remote.ensure([md5]) == []
        assert digest(planted, "md5") == md5


def test_a_model_that_runs_something_ends_the_verification(project: Project) -> None:
    project.forge("train", "model/model.pt2", MODELS["a call"](project.honest))
    project.commit("Another model")
    project.forget()
    with pytest.raises(ProjectError, match=r"model/model.pt2 is no model that may be read: calls 'torch.serialization"):
        project.verify()
    assert not (project.path / "model/model.pt2").exists()


@pytest.mark.parametrize(
    ("decision", "problem"),
    [
        ({"threshold": 2.0, "metric": "f1", "value": 0.5}, "threshold is '2.0', and must be a number in"),
        ({"threshold": 0.3, "metric": "accuracy", "value": 0.5}, "of the branch is chosen by 'accuracy', and train"),
    ],
)
def test_a_decision_that_cannot_be_ends_the_verification(
    decision: dict[str, Any], problem: str, project: Project
) -> None:
    project.forge("train", "model/decision.json", json.dumps(decision).encode())
    project.commit("Another decision")
    project.forget()
    with pytest.raises(ProjectError, match=rf"model/decision.json:? {problem}"):
        project.verify()
    assert not (project.path / "model/decision.json").exists()


def test_only_training_on_main_helps_against_a_model_of_other_rows(project: Project, tmp_path: Path) -> None:
    """A model that says it has these inputs and has seen the test rows is a model like any other."""
    cheat = tiny_model.save(tmp_path / "cheat.pt2", tiny_model.DERIVED_SCHEMA)
    project.forge("train", "model/model.pt2", cheat.read_bytes())
    with contextlib.chdir(project.path), dvc.opened("cannot check out") as repository:
        repository.checkout("model/model.pt2", force=True)
    with contextlib.chdir(project.path):
        dvc_stages.reproduce(["evaluate", "validate_model", "package"])
    assert digest(project.path / "model/model.pt2") == digest(cheat) and not project.trainings()
    project.commit("A model of all rows")
    project.forget()
    found = project.verify()
    assert (found["trained_on"], found["model_sha256"]) == ("branch", digest(cheat))
    project.git("restore", "dvc.lock")
    found = project.verify(train=True)
    assert (found["trained_on"], found["model_sha256"], project.trainings()) == ("main", digest(project.honest), 1)


@pytest.mark.parametrize("name", ["reports/gate.json", ".dvc/config.local", "__pycache__/stages.cpython-311.pyc"])
def test_what_a_run_makes_is_no_part_of_a_commit(name: str, project: Project) -> None:
    """Added by force, it would be taken for this machine's own: a result, a setting, other code than the source."""
    project.write(name, "x")
    project.git("add", "--force", name)
    project.git("commit", "--quiet", "--message", "Look at this")
    with pytest.raises(ProjectError, match=f"1 file.s. that .gitignore leaves out, such as {name}"):
        project.verify()


def test_nothing_of_a_person_is_lost(project: Project) -> None:
    """A table that was changed and not added, and files that were not committed."""
    project.write("data/raw.csv", "x,y\n1,1\n")
    with pytest.raises(ProjectError, match=r"data/raw.csv differs from data/raw.csv.dvc, and DVC has no copy"):
        project.verify()
    assert (project.path / "data/raw.csv").read_text() == "x,y\n1,1\n"
    project.write("handler.py", "# changed\n")
    with pytest.raises(ProjectError, match=r"a commit is verified, and these files differ from it: handler.py"):
        project.verify()
