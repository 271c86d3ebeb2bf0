"""A real project trained by the pods of a TrainJob, two processes of this machine; then its pull request's pipeline.

The pods run jobs/start.sh with the variables that Kubeflow Trainer sets (train_jobs.py). What is checked and submitted
before is tests/gitops/test_cluster.py, failures and restarts are tests/gitops/test_cluster_nodes.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from projects import environment, generate, make
from servers import free_port
from train_jobs import pod, train_job

pytestmark = [pytest.mark.real, pytest.mark.full]


def git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, env=environment(), stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, arguments
    return done.stdout.strip()


@pytest.fixture(scope="module")
def project(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that trains by two processes, with its data and splits in the DVC remote, and its commit on origin."""
    folder = tmp_path_factory.mktemp("cluster")
    project = generate(folder, dvc_remote=str(folder / "remote"))
    params = (project / "params.yaml").read_text()
    for old, new in ((r"epochs: \d+", "epochs: 4"), ("processes: 1", "processes: 2")):
        params, count = re.subn(rf"(?m)^  {old}", f"  {new}", params)
        assert count == 1, old
    (project / "params.yaml").write_text(params)
    make(project, "setup")
    dvc = project / ".venv/pipeline/bin/dvc"
    subprocess.run([dvc, "repro", "--quiet", "--pull", "validate_data"], cwd=project, env=environment(), check=True)
    make(project, "push")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "Two processes")
    git(project, "init", "--quiet", "--bare", str(folder / "origin.git"))
    git(project, "remote", "add", "origin", str(folder / "origin.git"))
    git(project, "push", "--quiet", "origin", "HEAD:refs/heads/work")
    return project


def start(project: Path, rank: int, port: int) -> subprocess.Popen[bytes]:
    """Start a node's container: an image with other code than the commit's, in which nothing can train."""
    folder = project.parent
    image, job, secrets = folder / "image", folder / f"job-{rank}", folder / f"secrets-{rank}"
    if not image.exists():
        leave_out = shutil.ignore_patterns(".git", ".venv", "cache", "*.csv", "prepared")
        shutil.copytree(project, image, ignore=leave_out)
        (image / ".venv").symlink_to(project / ".venv")
        for module in image.glob("src/*/train.py"):
            module.write_text("raise SystemExit('the code of the image')")
    for place in (job, secrets):
        place.mkdir()
    (secrets / "REPOSITORY").write_text(str(folder / "origin.git"))
    template = pod(train_job(project, nodes=2, processes=1))
    (container,) = template["spec"]["containers"]
    script = (project / "jobs/start.sh").read_text()
    for name, path in (("secrets", secrets), ("job", job), ("project", image)):
        script = re.sub(rf"(?<![\w.])/{name}\b", str(path), script)
    assert container["command"] == ["sh", "/project/jobs/start.sh"]
    pet = {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }
    assert {variable["name"] for variable in container["env"]} == {"COMMIT", *pet}
    variables = environment() | pet | {"COMMIT": git(project, "rev-parse", "HEAD"), "DVC_NO_ANALYTICS": "1"}
    log = (job / "log").open("wb")
    return subprocess.Popen(
        ["sh", "-c", script, "start.sh", *container["args"]],
        cwd=job,
        env=variables | {"OMP_NUM_THREADS": "1", "DVC_SITE_CACHE_DIR": str(job / "dvc")},
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_a_training_on_two_nodes_is_what_the_pull_request_finds(project: Path) -> None:
    folder, port = project.parent, free_port()
    before = {path for path in (folder / "remote").rglob("*") if path.is_file()}
    pods = [start(project, rank, port) for rank in (0, 1)]
    statuses = [each.wait(600) for each in pods]
    logs = [(folder / f"job-{rank}/log").read_text() for rank in (0, 1)]
    assert statuses == [0, 0], logs
    assert "the trained model is shared as" in logs[0] and "shared" not in logs[1]
    trained = folder / "job-0/project/model/model.pt2"
    assert trained.exists() and not (folder / "job-1/project/model").exists()
    added = {path for path in (folder / "remote").rglob("*") if path.is_file()} - before
    assert {path.relative_to(folder / "remote").parts[0] for path in added} == {"branches"}

    clone = folder / "clone"
    git(folder, "clone", "--quiet", "--branch", "work", str(folder / "origin.git"), str(clone))
    said = make(clone, "pipeline")
    assert "the model of the branches' part of the DVC remote is taken over" in said
    assert "Running stage 'train'" not in said and "Running stage 'evaluate'" in said
    assert digest(clone / "model/model.pt2") == digest(trained)
    assert json.loads((clone / "evaluation/metrics.json").read_text())["metrics"]["roc_auc"]["value"] > 0.8
