"""The platform's MLflow for real: settings as rendered, its database a Postgres of here, its bucket one of moto's."""

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from platform_objects import PLATFORM, Object, copied, one, pods, render
from postgres import postgres, program, wait_until
from projects import ROOT, generate, make
from servers import free_port
from servers import serving as started

#: The Secret mlflow-s3; the bucket's server is added to it.
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1"}

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

    def __init__(self, objects: list[Object], item: Object, name: str, folder: Path, reach: dict[str, str]) -> None:
        (pod,) = pods(item)
        every = [*pod["containers"], *pod.get("initContainers", [])]
        (self.container,) = [container for container in every if container["name"] == name]
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
            if "secretRef" in source:
                values.update(KEYS)
            else:
                values.update(one(self.objects, "ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in self.container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            values[variable["name"]] = SECRETS[reference["name"], reference["key"]] if reference else variable["value"]
        path = {"PATH": f"{ROOT / '.venv/mlflow/bin'}:{Path(program('pg_dump')).parent}:{os.environ['PATH']}"}
        return {**path, **{name: self.local(value) for name, value in values.items()}, **self.reach}

    def command(self) -> list[str]:
        return [self.local(word) for word in (*self.container["command"], *self.container.get("args", []))]

    def folder(self) -> str:
        return self.local(self.container["workingDir"])

    def run(self, **more: str) -> tuple[int, str]:
        """Run the container to its end; return its exit status, and what it says."""
        environment = self.environment() | more
        options: dict[str, Any] = {"cwd": self.folder(), "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(self.command(), **options)
        return done.returncode, done.stdout + done.stderr


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


def sql(reach: dict[str, str], statement: str) -> None:
    """Have the database do something."""
    command = [program("psql"), "--quiet", "--command", statement]
    subprocess.run(command, env={**os.environ, **reach}, check=True)


def restore(folder: Path, reach: dict[str, str]) -> None:
    """Run the Job that puts the newest dump of the volume in `folder` back."""
    job = yaml.safe_load((PLATFORM / "mlflow/restore.yaml").read_text())
    ended, said = Container([job], job, "pg-restore", folder, reach).run()
    assert ended == 0, said


@pytest.mark.real
def test_mlflow_takes_a_run_and_serves_its_model_back(database: dict[str, str], tmp_path: Path) -> None:
    """A project trains as a user of the platform; and the nightly dump brings all back after the tables are lost."""
    platform = render(PLATFORM)
    make(ROOT, f"PYTHON={sys.executable}", ".venv/mlflow")
    project = generate(tmp_path)
    make(project, "setup")
    settings = project / "params.yaml"
    settings.write_text(re.sub(r"epochs: \d+", "epochs: 3", settings.read_text(), count=1))
    server = Container(platform, one(platform, "Deployment"), "mlflow", tmp_path / "server", database)
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

    backup = Container(platform, one(platform, "CronJob"), "pg-dump", tmp_path / "backup", database)
    ended, said = backup.run()
    assert ended == 0, said
    (dump,) = (tmp_path / "backup/backups").iterdir()
    assert re.fullmatch(r"mlflow-\d{8}T\d{6}Z\.dump", dump.name)
    sql(database, "DROP TABLE metrics, params, tags, latest_metrics")
    restore(tmp_path / "backup", database)
    with serving(server, tmp_path / "log") as address:
        assert run(*predict, address=address).endswith("predictions\n")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server with an empty bucket, whose address is in KEYS; yields the bucket's."""
    port = free_port()
    moto = ROOT / ".venv/moto/bin"
    create = "import boto3; boto3.client('s3').create_bucket(Bucket='mlflow')"
    make(ROOT, f"PYTHON={sys.executable}", ".venv/mlflow", ".venv/moto")
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch, started(port, moto / "moto_server", "-H", "127.0.0.1", "-p", str(port)):
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": endpoint}).items():
            patch.setenv(name, value)
        patch.setitem(KEYS, "MLFLOW_S3_ENDPOINT_URL", endpoint)
        subprocess.run([moto / "python", "-c", create], check=True)
        yield "s3://mlflow"


@pytest.fixture(scope="module")
def platform(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The platform with the component s3, as its comment says how."""
    folder = copied(tmp_path_factory.mktemp("platform")) / "mlflow"
    path = folder / "kustomization.yaml"
    path.write_text(path.read_text().replace("  # - s3", "  - s3"))
    settings = (folder / "settings.env").read_text()
    for name, place in (("MLFLOW_ARTIFACTS_DESTINATION", "artifacts"), ("DUMPS_DESTINATION", "dumps")):
        settings, count = re.subn(rf"(?m)^{name}=.*", f"{name}={bucket}/{place}", settings)
        assert count == 1
    (folder / "settings.env").write_text(settings)
    return render(folder)


LOGS = """
import json, mlflow, pathlib
mlflow.set_experiment("churn")
pathlib.Path("weights.bin").write_bytes(b"what was trained")
with mlflow.start_run() as run:
    mlflow.log_metric("roc_auc", 0.9)
    mlflow.log_artifact("weights.bin")
print(run.info.run_id)
"""

READS = """
import mlflow, pathlib, sys
run = mlflow.get_run(sys.argv[1])
assert run.data.metrics == {"roc_auc": 0.9}
assert run.info.artifact_uri.startswith("mlflow-artifacts:")
path = mlflow.artifacts.download_artifacts(run_id=sys.argv[1], artifact_path="weights.bin")
assert pathlib.Path(path).read_bytes() == b"what was trained"
"""


def sign_up(first: str, second: str) -> None:
    """Ask one server for the form of a new account and send it to the other, which takes what the first has signed."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    opener.addheaders = [("Authorization", basic("admin", SECRETS["mlflow-server", "admin-password"]))]
    with opener.open(f"{first}/signup", timeout=30) as response:
        [token] = re.findall(r'name="csrf_token" value="([^"]+)"', response.read().decode())
    form = {"csrf_token": token, "username": "somebody", "password": "at least twelve"}
    create = f"{second}/api/2.0/mlflow/users/create-ui"
    with opener.open(create, urlencode(form).encode(), timeout=30) as response:
        assert response.status == 200
    experiments = f"{first}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(experiments, Authorization=basic("somebody", "at least twelve")) == 200


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Postgres without tables."""
    with postgres("mlflow", SECRETS["mlflow-database", "password"]) as reach:
        yield reach


@pytest.mark.real
def test_two_servers_share_database_and_bucket_and_outlive_the_cluster(
    platform: list[Object], empty: dict[str, str], tmp_path: Path
) -> None:
    """Both start at once on an empty database. Then all but the bucket is lost, and comes back from it."""
    deployment = one(platform, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    python, folder = str(ROOT / ".venv/mlflow/bin/python"), tmp_path / "client"
    folder.mkdir()

    def client(program: str, address: str, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {"MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_USERNAME": "admin"}
        environment |= {"MLFLOW_TRACKING_PASSWORD": SECRETS["mlflow-server", "admin-password"], "TMPDIR": str(folder)}
        command = [python, "-c", program, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1] if done.stdout else ""

    def pod(name: str, reach: dict[str, str]) -> list[Container]:
        return [Container(platform, deployment, each, tmp_path / name, reach) for each in ("tables", "mlflow")]

    both = [pod(name, empty) for name in ("first", "second")]
    with ThreadPoolExecutor() as pool:
        for ended, said in pool.map(lambda each: each[0].run(), both):
            assert ended == 0, said
    with serving(both[0][1], tmp_path / "log-1") as first, serving(both[1][1], tmp_path / "log-2") as second:
        run = client(LOGS, first)
        client(READS, second, run)
        sign_up(first, second)

    cron = one(platform, "CronJob", "mlflow-backup")
    for name in ("pg-dump", "copy"):
        ended, said = Container(platform, cron, name, tmp_path / "old", empty).run()
        assert ended == 0, said
    assert re.search(r"copied: mlflow-\d{8}T\d{6}Z\.dump, \d{5,} bytes", said)

    with postgres("mlflow", SECRETS["mlflow-database", "password"]) as new:
        tables, server = pod("third", new)
        assert tables.run()[0] == 0
        fetch = one(platform, "CronJob", "mlflow-fetch-dumps")
        ended, said = Container(platform, fetch, "fetch", tmp_path / "new", new).run()
        assert ended == 0 and "fetched: mlflow-" in said, said
        restore(tmp_path / "new", new)
        with serving(server, tmp_path / "log-3") as address:
            client(READS, address, run)


@pytest.mark.real
@pytest.mark.parametrize(
    ("program", "changed", "reason"),
    [
        ("copy", {}, "there is no dump to copy"),
        ("fetch", {"DUMPS_DESTINATION": "s3://mlflow/nothing"}, "there is no dump to fetch"),
        ("copy", {"DUMPS_DESTINATION": ""}, "an address such as s3://BUCKET/PATH is needed"),
        ("copy", {"DUMPS_DESTINATION": "/backups"}, "an address such as s3://BUCKET/PATH is needed"),
        ("copy", {"DUMPS_DESTINATION": "s3://mlflow/artifacts/dumps"}, "below MLFLOW_ARTIFACTS_DESTINATION"),
        ("copy", {"MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/"}, "below MLFLOW_ARTIFACTS_DESTINATION"),
    ],
)
def test_dumps_that_would_not_be_safe_fail_the_job(
    program: str, changed: dict[str, str], reason: str, platform: list[Object], tmp_path: Path
) -> None:
    name = {"copy": "mlflow-backup", "fetch": "mlflow-fetch-dumps"}[program]
    ended, said = Container(platform, one(platform, "CronJob", name), program, tmp_path, {}).run(**changed)
    assert ended == 1 and reason in said, said
