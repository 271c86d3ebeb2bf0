"""What the nodes of a TrainJob run (jobs/start.sh, cluster/node.py): two of them here, as processes of this machine.

DVC, Git, torchrun and gloo are real; the project is that of the tests of `make verify`, whose training sums up its
processes. tests/test_train_on_cluster.py of the template trains a real one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from gitops.cluster import node
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest
from gitops.integrations import mlflow_server
from gitops.retraining import stages
from ports import free_port
from verifying import Project

#: Instead of `train` of verifying.py: torchrun takes nodes and processes from PET_*; only the first process writes. The
#: training that finds `fail` leaves a checkpoint and ends.
TRAIN = """
def train():
    if "RANK" not in os.environ:
        import subprocess
        sys.exit(subprocess.run([sys.executable, "-m", "torch.distributed.run", "stages.py", "train"]).returncode)
    import torch
    import torch.distributed as distributed
    if Path(os.environ["TRAINED"] + "-fails").exists():
        write(".checkpoints/epoch", "1")
        sys.exit("the machine is gone")
    distributed.init_process_group("gloo")
    total = torch.tensor([float(os.environ["RANK"]) + 1])
    distributed.all_reduce(total)
    if os.environ["RANK"] == "0":
        train_alone()
        epoch = read(".checkpoints/epoch") if Path(".checkpoints/epoch").exists() else "0"
        write("model/learning_curve.csv", f"epoch,total\\n{epoch},{total.item()}\\n")
    distributed.destroy_process_group()

def train_alone():
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose splits are in a remote of its own, and lie in its commit's dvc.lock."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setattr(mlflow_server, "problem", lambda: None)
    monkeypatch.setenv(mlflow_server.VARIABLE, "http://localhost:1")
    project = Project(tmp_path)
    monkeypatch.setenv("TRAINED", str(project.trained))
    text = (project.path / "stages.py").read_text()
    project.write("stages.py", text.replace("def train():\n", TRAIN.lstrip("\n")))
    config = (project.path / ".dvc/config").read_text()
    project.write(".dvc/config", config.replace("../dvc-remote", str(tmp_path / "remote")))
    with (project.path / ".gitignore").open("a") as file:
        file.write("/.checkpoints/\n/.venv\n")
    project.write("requirements/pipeline.txt", "torch==1\n")
    with contextlib.chdir(project.path), Repo() as repository:
        repository.reproduce("prepare")
        repository.push()
    project.commit("Prepare")
    monkeypatch.chdir(project.path)
    return project


class Pods:
    """The pods of a TrainJob: each with the image's files in `project`, and its own /job and /secrets."""

    def __init__(self, project: Project, nodes: int) -> None:
        self.project, self.nodes, self.port = project, nodes, free_port()
        self.folder = project.path.parent
        image = self.folder / "image"
        shutil.copytree(project.path, image, ignore=shutil.ignore_patterns(".git", "cache", "data"))
        (image / "stages.py").write_text("raise SystemExit('the code of the image, not of the commit')")
        (image / ".venv").mkdir()
        (image / ".venv/pipeline").symlink_to(ROOT / ".venv/pipeline")

    def start(self, rank: int, **variables: str) -> subprocess.Popen[str]:
        """Start the container of a node; it finds what an earlier one has left in /job."""
        job, secrets = self.folder / f"job-{rank}", self.folder / f"secrets-{rank}"
        job.mkdir(exist_ok=True)
        secrets.mkdir(exist_ok=True)
        (secrets / "REPOSITORY").write_text(str(self.project.path))  # from the ConfigMap
        script = (ROOT / "jobs/start.sh").read_text()
        for name, path in (("/secrets/", f"{secrets}/"), ("/job/", f"{job}/"), ("/project/", f"{self.folder}/image/")):
            script = re.sub(rf"(?<![\w.]){name}", str(path), script)
        environment = os.environ | {
            "COMMIT": self.project.git("rev-parse", "HEAD"),
            "PET_NNODES": str(self.nodes),
            "PET_NPROC_PER_NODE": "1",
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(self.port),
            "DVC_NO_ANALYTICS": "1",
        }
        command = ["sh", "-c", script, "start.sh", "gitops.cluster.node"]
        return subprocess.Popen(
            command,
            cwd=job,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def ended(pod: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit status of a container, and what it has said."""
    said, _ = pod.communicate(timeout=120)
    return pod.returncode, said


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_two_nodes_train_together_and_the_pull_requests_run_finds_the_model(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first shares it below branches/, and nothing else; a fresh clone's `make pipeline` then trains nothing."""
    before = files(tmp_path / "remote")
    pods = Pods(project, 2)
    found = [ended(pod) for pod in [pods.start(rank) for rank in (1, 0)]]
    assert [status for status, _ in found] == [0, 0], found
    assert project.trainings() == 1
    assert "the trained model is shared as" in found[1][1] and "shared" not in found[0][1]
    assert not (tmp_path / "job-1/project/model").exists(), "only the first writes"
    assert not (tmp_path / "job-0/project/data/raw.csv").exists(), "nothing had to be prepared"
    added = files(tmp_path / "remote") - before
    assert added and all(path.startswith("branches/") for path in added)

    subprocess.run(["git", "clone", "--quiet", project.path, tmp_path / "clone"], check=True)
    with contextlib.chdir(tmp_path / "clone"):
        assert stages.main() == 0
        assert "the model of the branches' part of the DVC remote is taken over" in capfd.readouterr().out
        assert digest(artifacts.MODEL) == digest(project.honest)
        assert artifacts.LEARNING_CURVE.read_text() == "epoch,total\n0,3.0\n"
        assert "evaluate" in load_yaml("dvc.lock")["stages"]
    assert project.trainings() == 1


def test_a_container_that_is_started_again_goes_on(project: Project, tmp_path: Path) -> None:
    """From the checkpoint; and where the training has ended it only shares."""
    pods = Pods(project, 1)
    fails = Path(f"{project.trained}-fails")
    fails.touch()
    status, said = ended(pods.start(0))
    assert status == 1 and "failed to reproduce 'train'" in said and project.trainings() == 0
    fails.unlink()
    (tmp_path / "remote/branches").write_text("no folder: nothing can be shared")
    status, said = ended(pods.start(0))
    assert status == 1 and "DVC cannot write to its remote" in said and project.trainings() == 1
    assert (tmp_path / "job-0/project/model/learning_curve.csv").read_text() == "epoch,total\n1,1.0\n"
    (tmp_path / "remote/branches").unlink()
    status, said = ended(pods.start(0))
    assert status == 0 and "the trained model is shared as" in said, said
    assert project.trainings() == 1


def test_a_commit_with_other_locks_than_the_image_is_refused(project: Project, tmp_path: Path) -> None:
    pods = Pods(project, 1)
    project.write("requirements/pipeline.txt", "torch==2\n")
    project.commit("Another torch")
    status, said = ended(pods.start(0))
    assert status == 1
    assert "error: requirements/pipeline.txt of this commit is not that of the image: `make jobs-image`" in said
    assert project.trainings() == 0


def test_the_nodes_number_comes_from_trainer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "first", "-1"):
        monkeypatch.delenv(node.RANK, raising=False)
        if value is not None:
            monkeypatch.setenv(node.RANK, value)
        with pytest.raises(ProjectError, match=f"PET_NODE_RANK is '{value or ''}': Kubeflow Trainer sets it"):
            node.main()


def test_a_node_that_cannot_train_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command, or what is before it; a list of commands is one after the other."""
    ran: list[Any] = []
    monkeypatch.setattr(node, "relay", lambda command: ran.append(command) or len(ran) - 1)
    monkeypatch.setattr(node.dvc_stages, "entry", lambda stage: {"cmd": ["one", "two"]})
    monkeypatch.setenv(node.RANK, "1")
    assert (node.main(), node.main()) == (0, 1)
    assert ran == [["sh", "-c", "one && two"]] * 2
    project.write("stages.py", "raise SystemExit(1)")
    shutil.rmtree(project.path / "data/prepared")
    project.write("params.yaml", (project.path / "params.yaml").read_text())
    project.write("data/raw.csv", "x,y\n" + "1,1\n" * 40)
    assert node.main() == 1 and len(ran) == 2
