"""The pipeline for each task and for each kind of DVC remote that this machine can stand in for: `make test-full`."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import ROOT, generate, make
from servers import free_port, serving

pytestmark = [pytest.mark.real, pytest.mark.full]

#: What an answer earns by the actual class: a customer whom one takes for a better one than he is costs most.
ANSWERS = {
    "low": {"low": 0, "middle": -20, "high": -50},
    "middle": {"low": -5, "middle": 10, "high": -20},
    "high": {"low": -10, "middle": 5, "high": 40},
}

#: What each task changes in params.yaml; the gate's threshold is one that a working model is well above.
TASKS: dict[str, dict[str, Any]] = {
    "binary": {
        "data": {"task": "binary", "positive": "yes"},
        "value": None,
        "gate": {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.85}, "guardrail_metrics": {"brier": 0.02}},
    },
    "multiclass": {
        "data": {"task": "multiclass", "positive": None},
        "value": {"error": None, "answers": ANSWERS, "today": {"answer": "middle"}},
        "gate": {"primary_metric": "macro_f1", "thresholds": {"macro_f1": 0.6}, "guardrail_metrics": {"log_loss": 0.1}},
    },
    "regression": {
        "data": {"task": "regression", "positive": None},
        "value": {"answers": None, "error": {"over": 1.0, "under": 3.0}, "today": {"column": "income"}},
        "gate": {"primary_metric": "r2", "thresholds": {"r2": 0.7}, "guardrail_metrics": {"mae": 0.2}},
    },
}

#: An SSH server that lets anybody in, with the asyncssh that DVC brings along.
SSH_SERVER = """
import asyncio, asyncssh, sys

class Open(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False

async def serve():
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1", int(sys.argv[1]), server_factory=Open, server_host_keys=[key], sftp_factory=True
    )
    await server.wait_closed()

asyncio.run(serve())
"""


def write_table(path: Path, task: str) -> None:
    """Write 900 rows of what a table may hold: numbers, gaps, padded text, booleans, dates; and the task's target."""
    dice = random.Random(7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["income", "age", "plan", "is_member", "opened_at", "outcome"])
        for _ in range(900):
            income, age, plan, member = dice.gauss(0, 1), dice.randint(18, 80), dice.choice("ABC"), dice.random() < 0.4
            score = income + (age - 49) / 20 + {"A": -1, "B": 0, "C": 1}[plan] + member + dice.gauss(0, 0.3)
            outcome: object = round(score, 3)
            if task == "binary":
                outcome = "yes" if score > 0.4 else "no"
            elif task == "multiclass":
                outcome = "low" if score < -0.6 else "high" if score > 1.2 else "middle"
            opened = f"20{dice.randint(10, 24)}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
            writer.writerow(
                [round(income, 3), "" if dice.random() < 0.05 else age, f" {plan} ", member, opened, outcome]
            )


@pytest.mark.parametrize("task", TASKS)
def test_task(task: str, tmp_path: Path) -> None:
    """Another table needs nothing but itself and params.yaml."""
    project = generate(tmp_path)
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["data"] |= {"target": "outcome"} | TASKS[task]["data"]
    settings["gate"] |= TASKS[task]["gate"]
    settings["value"] = TASKS[task]["value"] and settings["value"] | TASKS[task]["value"]
    settings["train"] |= {"threshold": "f1"}
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    write_table(project / "data/raw.csv", task)
    make(project, "setup")
    subprocess.run([project / ".venv/pipeline/bin/dvc", "add", "--quiet", "data/raw.csv"], cwd=project, check=True)
    make(project, "pipeline")
    make(project, "gate")
    measured = json.loads((project / "evaluation/metrics.json").read_text())
    assert ("value" in measured) == ("expected_value" in measured["metrics"]) == (TASKS[task]["value"] is not None)
    assert task == "binary" or measured["value"]["gain"]["low"] > 0
    make(project, "test")
    raises_no_alarm(project, task)


def raises_no_alarm(project: Path, task: str) -> None:
    """Compare 200 windows without drift with one reference, at the smallest size that is evaluated and at a usual one.

    At the usual size each injected drift must be found, too.
    """
    for rows, drifted in ((100, 0), (500, 1)):
        sizes = [f"--task={task}", "--windows=200", f"--rows={rows}", f"--drifted={drifted}"]
        simulation: list[str | Path] = [
            project / ".venv/validate/bin/python",
            ROOT / "tests/gitops/monitor_simulation.py",
        ]
        done = subprocess.run([*simulation, *sizes], cwd=project, stdout=subprocess.PIPE, text=True, check=True)
        (result,) = json.loads(done.stdout)
        assert result["windows"] == 200
        assert result["alarms"] <= 2, result["false"]
        for name, (check, column) in result["injected"].items():
            assert result["found"][name].get(f"{check}: {column}", 0) == drifted, (name, result["found"])


def test_remote_folder(tmp_path: Path) -> None:
    project = generate(tmp_path, dvc_remote=str(tmp_path / "storage"))
    make(project, "setup")
    check_remote(project, tmp_path / "clone")


def test_remote_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    moto = ROOT / ".venv/moto/bin"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    create = f"import boto3; boto3.client('s3', endpoint_url='http://127.0.0.1:{port}').create_bucket(Bucket='bucket')"
    project = generate(tmp_path, dvc_remote="s3://bucket/path")
    make(project, "setup")
    with serving(port, moto / "moto_server", "-H", "127.0.0.1", "-p", str(port)):
        subprocess.run([moto / "python", "-c", create], check=True)
        check_remote(project, tmp_path / "clone", "endpointurl", f"http://127.0.0.1:{port}")


def test_remote_ssh(tmp_path: Path) -> None:
    port = free_port()
    project = generate(tmp_path, dvc_remote=f"ssh://somebody@127.0.0.1:{port}{tmp_path / 'storage'}")
    make(project, "setup")
    with serving(port, project / ".venv/pipeline/bin/python", "-c", SSH_SERVER, str(port)):
        check_remote(project, tmp_path / "clone")


def check_remote(project: Path, clone: Path, *setting: str) -> None:
    """What one clone has pushed another one gets, and it trains nothing."""
    dvc = project / ".venv/pipeline/bin/dvc"
    if setting:
        subprocess.run([dvc, "remote", "modify", "--local", "storage", *setting], cwd=project, check=True)
    make(project, "pipeline")
    subprocess.run([dvc, "push", "--quiet"], cwd=project, check=True)
    subprocess.run(["git", "add", "dvc.lock"], cwd=project, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message=Train"], cwd=project, check=True)
    subprocess.run(["git", "clone", "--quiet", project, clone], check=True)
    if setting:
        subprocess.run([dvc, "remote", "modify", "--local", "storage", *setting], cwd=clone, check=True)
    assert "Running stage" not in make(clone, "pipeline")
    for file in ("data/raw.csv", "model/model.pt2"):
        assert (clone / file).read_bytes() == (project / file).read_bytes()
