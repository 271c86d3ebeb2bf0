"""`make train-on-cluster`: what is checked before a TrainJob is created, and what kubectl is asked and refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import fake_kubectl_path
import pytest
import yaml
from conftest import ROOT
from dvc.repo import Repo
from gitops.cluster import submit, train_job
from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc_remote, mlflow_server
from gitops.releases import trained
from verifying import Project

DIGEST = f"sha256:{'1' * 64}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project whose splits are in the DVC remote, and its origin. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        project = Project(folder)
        shutil.copytree(ROOT / "k8s", project.path / "k8s")
        jobs = project.path / submit.JOBS
        jobs.write_text(jobs.read_text().replace("newTag: unset", f"digest: {DIGEST}"))
        with contextlib.chdir(project.path), Repo() as repository:
            repository.reproduce("prepare")
            repository.push()
        project.commit("Prepare")
        project.git("init", "--quiet", "--bare", str(folder / "origin.git"))
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it that is checked out, its commit on origin, and a DVC remote that counts as a bucket."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    copy = Project.__new__(Project)
    copy.path, copy.trained = tmp_path / "project", tmp_path / "trained"
    copy.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    copy.git("push", "--quiet", "origin", "HEAD:refs/heads/work")
    for name in ("IMAGE", "NODES", "QUEUE", "NAMESPACE", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRAINED", str(copy.trained))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setattr(mlflow_server, "problem", lambda: None)
    monkeypatch.setattr(dvc_remote, "on_this_machine", lambda: False)
    monkeypatch.chdir(copy.path)
    return copy


class Cluster:
    """The stand-in for kubectl, first on PATH, and its cluster."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "cluster.json"
        self.is_("2.2", ["torch-distributed"], ["default", "m-toy-production"])
        monkeypatch.setenv("FAKE_KUBECTL", str(self.file))
        monkeypatch.setenv("PATH", f"{fake_kubectl_path.make(folder)}{os.pathsep}{os.environ['PATH']}")

    def is_(self, trainer: str | None, runtimes: list[str], allowed: list[str]) -> None:
        state = {"trainer": trainer, "runtimes": runtimes, "allowed": allowed}
        self.file.write_text(json.dumps(state | {"namespaces": allowed[:2], "created": [], "jobs": []}))

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train-on-cluster", *arguments])
    submit.main()


def name(project: Project) -> str:
    return f"breast-cancer-train-{project.git('rev-parse', 'HEAD')[:12]}"


def processes(project: Project, number: int) -> None:
    """Set train.processes, whether the project's settings have it or not, and push the commit."""
    params = yaml.safe_load((project.path / "params.yaml").read_text())
    params["train"]["processes"] = number
    project.write("params.yaml", yaml.safe_dump(params))
    project.commit("More processes")
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/work")


def test_the_commit_is_submitted_once(
    project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch)
    (job,) = cluster.state["jobs"]
    commit = project.git("rev-parse", "HEAD")
    assert job["metadata"]["name"] == name(project)
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (1, 1)
    assert trainer["env"] == [{"name": "COMMIT", "value": commit}]
    assert trainer["image"] == f"ghcr.io/your-organisation/breast-cancer-jobs@{DIGEST}"
    assert train_job.QUEUE not in job["metadata"]["labels"]
    assert cluster.state["created"] == [[name(project), "default"]]
    assert f"TrainJob {name(project)} is created: 1 node(s)" in capsys.readouterr().out
    with pytest.raises(
        ProjectError, match=rf"is there.*`kubectl delete trainjob {name(project)}` first.*AlreadyExists"
    ):
        run(monkeypatch)
    assert len(cluster.state["jobs"]) == 1, "created, not applied"


def test_nodes_queue_namespace_and_image_are_arguments(
    project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(project, 6) if "processes" in declared() else monkeypatch.setattr(submit, "_total", lambda: 6)
    image = f"registry.example:5000/jobs@sha256:{'a' * 64}"
    for variable, value in (("NODES", "3"), ("QUEUE", "night"), ("NAMESPACE", "m-toy-production"), ("IMAGE", image)):
        monkeypatch.setenv(variable, value)
    run(monkeypatch)
    (job,) = cluster.state["jobs"]
    trainer = job["spec"]["trainer"]
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"]) == (image, 3, 2)
    assert job["metadata"]["labels"][train_job.QUEUE] == "night"
    assert cluster.state["created"] == [[name(project), "m-toy-production"]]
    with pytest.raises(ProjectError, match=r"train\.processes is 6, which 4 nodes cannot share: a multiple of NODES"):
        run(monkeypatch, "--nodes", "4")


def declared() -> set[str]:
    from breast_cancer.settings import Train

    return {*Train.model_fields}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (("--nodes", "0"), "NODES is '0': a number from 1 to 1000"),
        (("--nodes", "1001"), "NODES is '1001'"),
        (("--nodes", "2; reboot"), "NODES is '2; reboot'"),
        (("--nodes=-1",), "NODES is '-1'"),
        (("--queue", "a/b"), "QUEUE is 'a/b': a name of lower-case letters"),
        (("--namespace", "--kubeconfig=/tmp/x"), "NAMESPACE is"),
        (("--namespace=--kubeconfig=/tmp/x",), "NAMESPACE is '--kubeconfig=/tmp/x'"),
        (("--namespace=x\n::error::y",), "NAMESPACE is 'x ::error::y'"),
        (("--image", "ghcr.io/x/jobs:latest"), "IMAGE is 'ghcr.io/x/jobs:latest': NAME@sha256:DIGEST is needed"),
        (("--image", f"-x@{DIGEST}"), "IMAGE is"),
        (("--image", f"x@{DIGEST}\nname: y"), "IMAGE is"),
    ],
)
def test_arguments_are_names_and_numbers(
    argument: tuple[str, ...], said: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_commit", lambda: "0" * 40)
    with pytest.raises((ProjectError, SystemExit)) as error:
        run(monkeypatch, *argument)
    assert isinstance(error.value, SystemExit) or said in str(error.value)
    assert cluster.state["jobs"] == []


def refusal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    with pytest.raises(ProjectError) as error:
        run(monkeypatch, *arguments)
    return str(error.value)


def test_only_a_commit_that_pods_can_fetch(project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("train.py", "changed")
    assert refusal(monkeypatch) == (
        "pods train the commit that is checked out, and these files differ from it: train.py"
    )
    project.commit("Change")
    commit = project.git("rev-parse", "HEAD")[:12]
    assert refusal(monkeypatch) == f"commit {commit} is on no branch of origin, where pods fetch it: `git push`"
    project.git("commit", "--quiet", "--allow-empty", "--message", "One more")
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/work")
    project.git("checkout", "--quiet", "HEAD~1")
    run(monkeypatch)  # an ancestor of a branch is as good as its tip
    project.git("remote", "remove", "origin")
    assert "has no remote origin" in refusal(monkeypatch)
    assert len(cluster.state["jobs"]) == 1


def test_the_image_has_a_digest(project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, said in (
        ("images: [{name: jobs, newName: ghcr.io/x/jobs, newTag: unset}]", "'jobs' has no digest .*make jobs-image"),
        ("images: [{name: server, newName: x}]", "images needs an entry with name 'jobs'"),
        ("images", "images needs an entry with name 'jobs'"),
        ("{", "images needs an entry with name 'jobs'"),
    ):
        project.write(str(submit.JOBS), text)
        project.commit("Another image")
        project.git("push", "--quiet", "--force", "origin", "HEAD:refs/heads/work")
        with pytest.raises(ProjectError, match=said):
            run(monkeypatch)
    assert cluster.state["jobs"] == []


def test_a_folder_is_no_remote_for_pods(project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(project.path)
    Cluster(project.path.parent, monkeypatch)
    said = refusal(monkeypatch)
    assert said.startswith("the DVC remote is a folder of this machine, which a pod does not see: a bucket is needed.")
    assert "dvc remote modify storage url s3://BUCKET/PATH" in said and "make lock push" in said
    assert dvc_remote.on_this_machine()


def test_what_train_reads_is_in_the_remote_as_the_commit_says(
    project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = "run `.venv/pipeline/bin/dvc repro --pull prepare`, then `make push`, and commit and push dvc.lock"
    (project.path / "data/prepared/train.parquet").unlink()
    assert refusal(monkeypatch) == f"prepare: out of date or missing here: {mend}"
    with Repo() as repository:
        repository.checkout(["prepare"])
    objects = [*(project.path / "dvc-remote/files").rglob("*")]
    md5 = next(out["md5"] for out in project.lock()["stages"]["prepare"]["outs"] if "train" in out["path"])
    (gone,) = [path for path in objects if path.parent.name + path.name == md5]
    gone.rename(gone.with_name("elsewhere"))
    assert refusal(monkeypatch) == f"the DVC remote lacks data/prepared/train.parquet, which pods read there: {mend}"
    gone.with_name("elsewhere").rename(gone)
    lock = (project.path / "dvc.lock").read_text()
    project.write("dvc.lock", lock.replace("stages:", "stages:\n  other: {cmd: x}"))
    run(monkeypatch)  # what other stages have done since does not matter
    project.git("rm", "--quiet", "--cached", "dvc.lock")
    project.git("commit", "--quiet", "--message", "No lock")
    project.git("push", "--quiet", "origin", "HEAD:refs/heads/work")
    project.write("dvc.lock", lock)
    monkeypatch.setattr(submit.workspace, "require_committed", lambda purpose: None)
    assert refusal(monkeypatch) == f"the commit's dvc.lock has other results of prepare than are here: {mend}"


@pytest.mark.parametrize("where", ["here", "shared"])
def test_a_model_that_is_there_is_not_trained(
    where: str, project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repo() as repository:
        repository.reproduce("train")
    if where == "shared":
        trained.share()
        project.git("checkout", "--quiet", "dvc.lock")
        shutil.rmtree(project.path / "model")
        shutil.rmtree(project.path / ".dvc/cache/runs")
    assert refusal(monkeypatch).startswith("nothing to train: the model of this commit is here or shared already")


@pytest.mark.parametrize(
    ("trainer", "runtimes", "allowed", "said"),
    [
        (None, ["torch-distributed"], ["default"], "Kubeflow Trainer 2.2 or later is not installed there"),
        ("2.1", ["torch-distributed"], ["default"], "Kubeflow Trainer 2.2 or later is not installed there"),
        ("2.2", [], ["default"], "it lacks the runtime that k8s/training/trainjob.yaml names"),
        ("2.2", ["torch-distributed"], ["m-other"], "you may not create TrainJobs there: who may has the Role `train`"),
        ("2.2", ["torch-distributed"], ["a", "b", "default"], "there is no such namespace: NAMESPACE=..."),
    ],
)
def test_a_refusal_says_what_to_do(
    trainer: str | None,
    runtimes: list[str],
    allowed: list[str],
    said: str,
    cluster: Cluster,
) -> None:
    cluster.is_(trainer, runtimes, allowed)
    with pytest.raises(ProjectError, match=f"^the cluster does not take the TrainJob: {re.escape(said)}"):
        submit._create(job(), None)


def job() -> dict[str, Any]:
    return train_job.render(train_job.Training("0" * 40, f"x@{DIGEST}", 1, 1, None), ROOT / train_job.MANIFEST)


def test_what_kubectl_says_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProjectError, match=r"^kubectl cannot be run \(No such file or directory\): is it installed"):
        submit._create(job(), None)
    program.write_text("#!/bin/sh\nprintf '\\n::error::x\\033[2J' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(ProjectError, match=r"^the cluster does not take the TrainJob \(: :error::x\[2J\)$"):
        submit._create(job(), None)


def test_kubectl_knows_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, which finds no cluster: the stand-in asks for these very options."""
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    (tmp_path / "config").write_text("{apiVersion: v1, kind: Config}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(ProjectError, match=r"^the cluster does not take the TrainJob \(.*(refused|connect)"):
        submit._create(job(), "m-toy-production")


def test_a_dry_run_prints_it(
    project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--dry-run")
    job = yaml.safe_load(capsys.readouterr().out)
    assert job["metadata"]["name"] == name(project) and cluster.state["jobs"] == []


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trainjob.yaml"
    training = train_job.Training("0" * 40, "x", 1, 1, None)
    good = (ROOT / train_job.MANIFEST).read_text()
    for text, said in (
        (None, "is missing"),
        ("a: [", "is not valid YAML"),
        ("[]", "a TrainJob of trainer.kubeflow.org/v1alpha1 with the label"),
        (good.replace("kind: TrainJob", "kind: PyTorchJob"), "a TrainJob of"),
        (good.replace("/v1alpha1", "/v2"), "a TrainJob of"),
        (good.replace("name: breast-cancer\n", "name: Breast.Cancer\n", 1), "the label .* is 'Breast.Cancer'"),
        (good.replace("name: breast-cancer\n", "name: 'a b'\n", 1), "the label .* is 'a b'"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ProjectError, match=said):
            train_job.render(training, path)
