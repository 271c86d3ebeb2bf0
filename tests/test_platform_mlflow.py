"""The platform's MLflow for real: its settings are the rendered Deployment's, its database a Postgres of here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from platform_objects import PLATFORM, Object, one, pods, render
from postgres import postgres, program, wait_until
from projects import ROOT, generate, make
from servers import free_port

SECRETS = {
    ("mlflow-database", "password"): "p@ss/word:%41 with 'all' sorts",
    ("mlflow-server", "admin-password"): "an administrator's password",
    ("mlflow-server", "session-key"): "what sessions are signed with",
}


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    """A Postgres with the database and user of the platform; yields how libpq reaches it."""
    with postgres("mlflow", SECRETS["mlflow-database", "password"]) as reach:
        yield reach


class Container:
    """A rendered container, run on this machine: its volumes are folders, its database is `reach`."""

    def __init__(self, objects: list[Object], kind: str, folder: Path, reach: dict[str, str]) -> None:
        (pod,) = pods(one(objects, kind))
        (self.container,) = pod["containers"]
        self.objects, self.reach = objects, reach
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        self.mounts = {mount["mountPath"]: folder / mount["name"] for mount in self.container["volumeMounts"]}
        for mount in self.container["volumeMounts"]:
            (folder / mount["name"]).mkdir(parents=True, exist_ok=True)
            if settings := volumes[mount["name"]].get("configMap"):
                for name, text in one(objects, "ConfigMap", settings["name"])["data"].items():
                    (folder / mount["name"] / name).write_text(text)

    def local(self, text: str) -> str:
        """Return the text with its folder instead of the volume's path, where it starts with one."""
        for path, folder in self.mounts.items():
            if text == path or text.startswith(f"{path}/"):
                return f"{folder}{text.removeprefix(path)}"
        return text

    def environment(self) -> dict[str, str]:
        values = {}
        for source in self.container.get("envFrom", []):
            values.update(one(self.objects, "ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in self.container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            values[variable["name"]] = SECRETS[reference["name"], reference["key"]] if reference else variable["value"]
        path = {"PATH": f"{ROOT / '.venv/mlflow/bin'}:{Path(program('pg_dump')).parent}:{os.environ['PATH']}"}
        return {**path, **{name: self.local(value) for name, value in values.items()}, **self.reach}

    def command(self) -> list[str]:
        return [*self.container["command"], *self.container["args"]]

    def folder(self) -> str:
        return self.local(self.container["workingDir"])


@contextmanager
def serving(container: Container, log: Path) -> Iterator[str]:
    """Run the Deployment's MLflow until its own probe is answered, and yield its address."""
    port = free_port()
    changed = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
    command = [changed.pop(word, word) for word in container.command()]
    assert not changed, "the server is to listen everywhere, on the port that the Service names"
    address = f"http://localhost:{port}"
    with log.open("a") as output:
        options: dict[str, Any] = {"cwd": container.folder(), "env": container.environment(), "process_group": 0}
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        try:
            probe = container.container["startupProbe"]["httpGet"]["path"]
            # As the kubelet asks: by the pod's address, which is none of the allowed hosts.
            ask = f"http://127.0.0.1:{port}{probe}"
            wait_until(lambda: status(ask, Host="10.0.0.7:5000") == 200, server)
            yield address
        except BaseException:
            print(log.read_text()[-4000:])
            raise
        finally:
            server.terminate()
            server.wait(timeout=60)


def status(address: str, body: object = None, **headers: str) -> int:
    """Return the status of an answer, or 0 where nothing listens."""
    content = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(address, content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


PREDICTS = """
import json, mlflow, pandas, pyarrow.fs
run_id = json.load(open("model/run.json"))["run_id"]
files = pyarrow.fs.LocalFileSystem()  # see artifacts.read_parquet
test = pandas.read_parquet("data/prepared/test.parquet", filesystem=files)
predicted = pandas.read_parquet("evaluation/predictions.parquet", filesystem=files)
evaluated = json.load(open("evaluation/metrics.json"))["metrics"]["roc_auc"]["value"]
assert mlflow.get_run(run_id).data.metrics["test_roc_auc"] == evaluated
assert mlflow.get_run(run_id).info.artifact_uri.startswith("mlflow-artifacts:")
answers = mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(test)
wanted = predicted[predicted["split"] == "test"]
assert [answer["label"] for answer in answers] == wanted["prediction"].to_list()
print(len(answers), "predictions")
"""


@pytest.mark.real
def test_mlflow_takes_a_run_and_serves_its_model_back(database: dict[str, str], tmp_path: Path) -> None:
    """A project trains as a user of the platform; and the nightly dump brings all back after the tables are lost."""
    platform = render(PLATFORM)
    make(ROOT, f"PYTHON={sys.executable}", ".venv/mlflow")
    project = generate(tmp_path)
    make(project, "setup")
    settings = project / "params.yaml"
    settings.write_text(re.sub(r"epochs: \d+", "epochs: 3", settings.read_text(), count=1))
    server = Container(platform, "Deployment", tmp_path / "server", database)
    admin = basic("admin", SECRETS["mlflow-server", "admin-password"])
    account = {"username": "churn", "password": "at least twelve characters"}
    environment = {**os.environ, "MLFLOW_TRACKING_USERNAME": account["username"]}
    environment["MLFLOW_TRACKING_PASSWORD"] = account["password"]
    pipeline = project / ".venv/pipeline/bin"
    predict = [str(pipeline / "python"), "-c", PREDICTS]

    def run(*command: str, address: str) -> str:
        settings = {**environment, "MLFLOW_TRACKING_URI": address, "PATH": f"{pipeline}:{os.environ['PATH']}"}
        done = subprocess.run(command, cwd=project, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with serving(server, tmp_path / "log") as address:
        experiments = f"{address}/api/2.0/mlflow/experiments/search?max_results=1"
        assert status(experiments) == 401
        assert status(experiments, Authorization=basic("admin", "password1234")) == 401
        assert status(experiments, Authorization=admin) == 200
        assert status(experiments, Authorization=admin, Host="attacker.example") == 403
        for host in ("mlflow.mlflow.svc:5000", "mlflow.mlflow.svc.cluster.local:5000"):
            assert status(experiments, Authorization=admin, Host=host) == 200
        assert status(f"{address}/api/2.0/mlflow/users/create", account, Authorization=admin) == 200
        run(str(pipeline / "dvc"), "repro", "--pull", "evaluate", address=address)
        assert run(*predict, address=address).endswith("predictions\n")
        assert list((tmp_path / "server/artifacts").rglob("model.pt2")), "artifacts are not on their volume"

    backup = Container(platform, "CronJob", tmp_path / "backup", database)
    subprocess.run(backup.command(), cwd=backup.folder(), env=backup.environment(), check=True)
    (dump,) = (tmp_path / "backup/backups").iterdir()
    assert re.fullmatch(r"mlflow-\d{8}T\d{6}Z\.dump", dump.name)
    lose = [
        program("psql"),
        "--quiet",
        "--command",
        "DROP TABLE metrics, params, tags, latest_metrics",
    ]
    subprocess.run(lose, env={**os.environ, **database}, check=True)
    jobs = [yaml.safe_load((PLATFORM / "mlflow/restore.yaml").read_text())]
    restore = Container(jobs, "Job", tmp_path / "backup", database)
    subprocess.run(restore.command(), cwd=restore.folder(), env=restore.environment(), check=True)
    with serving(server, tmp_path / "log") as address:
        assert run(*predict, address=address).endswith("predictions\n")
