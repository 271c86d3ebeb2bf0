"""What takes any fsspec address, against an S3 server that asks for keys: each part has the rights that are documented.

Server: moto, which checks signatures and policies: https://docs.getmoto.org/en/latest/docs/iam.html
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT, generate, make
from servers import NAME, OUTSIDE, Container, free_port, serving, started

pytestmark = [pytest.mark.real, pytest.mark.full]

MOTO = ROOT / ".venv/moto/bin"

#: The actions that docs/system-design.md ("Addresses") says each part needs, by the path below the bucket.
RIGHTS = {
    "server": {"log/*": ["PutObject"]},
    "monitor": {
        "": ["ListBucket"],
        "log/*": ["GetObject"],
        "labels/*": ["GetObject"],
        "log/watched/monitor-state.json": ["PutObject"],
        "log/watched/monitor.prom": ["PutObject"],
    },
    "drift-metrics": {"log/watched/monitor.prom": ["GetObject"]},
    "compact": {"": ["ListBucket"], "log/*": ["GetObject", "PutObject", "DeleteObject"]},
    "retrain": {"": ["ListBucket"], "log/*": ["GetObject"], "labels/*": ["GetObject"]},
    "replay": {"": ["ListBucket"], "log/*": ["GetObject"]},
    "batch": {
        "": [
            "ListBucket",
            "DeleteObject",
        ],  # moto asks for the latter at the bucket where several may go; S3 by the key
        "tables/*": ["GetObject"],
        "out/*": ["GetObject", "PutObject", "DeleteObject"],
    },
}

#: What the DVC remote takes of who reads a release, of who writes one, of a branch's run, and of who cleans up.
REMOTE = {
    "monitor": {"": ["ListBucket"], "dvc/*": ["GetObject"]},
    "release": {"": ["ListBucket"], "dvc/*": ["GetObject", "PutObject"]},
    "branch": {"": ["ListBucket"], "dvc/*": ["GetObject"], "dvc/branches/*": ["PutObject"]},
    "cleaner": {"": ["ListBucket", "DeleteObject"], "dvc/*": ["GetObject", "DeleteObject"]},
}

NOBODY = {"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": "no-such-secret"}

#: Makes the bucket and a user for each of the rights that it is told, and prints their keys, which moto then asks for.
PREPARE = """
import boto3, json, os, sys, urllib.request
boto3.client("s3").create_bucket(Bucket="bucket")
iam, keys = boto3.client("iam"), {}
for name, rights in json.load(sys.stdin).items():
    allowed = [
        {"Effect": "Allow", "Action": [f"s3:{action}" for action in actions], "Resource": f"arn:aws:s3:::bucket{path}"}
        for path, actions in rights
    ]
    iam.create_user(UserName=name)
    policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys[name] = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
address = os.environ["AWS_ENDPOINT_URL"] + "/moto-api/reset-auth"
urllib.request.urlopen(urllib.request.Request(address, b"0", {"Content-Type": "text/plain"}))
print(json.dumps(keys))
"""

PUT = """
import boto3, json, sys
client = boto3.client("s3")
for key, text in json.load(sys.stdin).items():
    client.put_object(Bucket="bucket", Key=key, Body=text.encode())
"""

#: Prints each object's text by its key, as JSON.
OBJECTS = """
import boto3, json
client = boto3.client("s3")
pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket")
keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
print(json.dumps({key: client.get_object(Bucket="bucket", Key=key)["Body"].read().decode("latin-1") for key in keys}))
"""


@dataclass
class S3:
    """An S3 server on this machine, and the environment of each user."""

    port: int
    users: dict[str, dict[str, str]] = field(default_factory=lambda: {"nobody": NOBODY})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve an empty bucket until the block ends."""
        named = {"owner": [("", ["*"]), ("/*", ["*"])]}
        for name, paths in [*RIGHTS.items(), *REMOTE.items()]:
            named.setdefault(name, []).extend((f"/{path}".rstrip("/"), actions) for path, actions in paths.items())
        with serving(self.port, MOTO / "moto_server", "-H", "127.0.0.1", "-p", str(self.port)):
            self.users |= json.loads(self.python("nobody", PREPARE, named))
            yield

    def environment(self, user: str) -> dict[str, str]:
        address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_DEFAULT_REGION": "us-east-1"}
        return address | self.users[user]

    def python(self, user: str, program: str, told: Any = None) -> str:
        """Run a program that has boto3 as this user, tell it something as JSON, and return what it prints."""
        command: list[str | Path] = [MOTO / "python", "-c", program]
        environment = os.environ | self.environment(user)
        done = subprocess.run(
            command, env=environment, input=json.dumps(told), stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def put(self, **objects: str) -> None:
        """Write texts to keys of the bucket."""
        self.python("owner", PUT, objects)

    def objects(self) -> dict[str, str]:
        """Return the bucket's objects, bytes as latin-1."""
        found: dict[str, str] = json.loads(self.python("owner", OBJECTS))
        return found

    def logged(self) -> list[str]:
        """Return the ids of the requests in the log."""
        texts = [text for key, text in self.objects().items() if key.startswith("log/") and key.endswith(".jsonl")]
        return [json.loads(line)["request_id"] for text in texts for line in text.splitlines()]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    store = S3(free_port())
    with store.running():
        yield store


@pytest.fixture(autouse=True)
def nobody_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests: their keys are not used, nor an address of theirs."""
    for name in [name for name in os.environ if name.startswith("AWS_")] + ["REQUEST_LOG", "LABELS", "INPUT", "OUTPUT"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def project(s3: S3, identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its data in S3, and a release of it after a short training."""
    folder = tmp_path_factory.mktemp("s3")
    project = generate(folder, dvc_remote="s3://bucket/dvc")
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", "  epochs: 30", settings))
    origin = folder / "origin.git"
    git = ("git", "-C", str(project))
    subprocess.run(["git", "init", "--quiet", "--bare", origin], check=True)
    subprocess.run([*git, "remote", "add", "origin", str(origin)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment("release").items():
            patch.setenv(name, value)
        make(project, "pipeline")
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=Train"], check=True)
        subprocess.run([*git, "push", "--quiet", "origin", "HEAD:main"], check=True)
        make(project, "verify", "gate", "plan", "deploy", "IMAGE=registry.example/model:1")
    return project


def test_a_branch_shares_its_model_and_writes_nothing_else(s3: S3, project: Path) -> None:
    before = s3.objects().keys()
    status, said = run(project, s3.environment("branch"), "releases.trained")
    assert status == 0, said
    assert all(key.startswith("dvc/branches/") for key in s3.objects().keys() - before)
    (project / "data/more.csv").write_text("a\n1\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment("branch").items():
            patch.setenv(name, value)
        subprocess.run([project / ".venv/pipeline/bin/dvc", "add", "--quiet", "data/more.csv"], cwd=project, check=True)
        status, said = run(project, s3.environment("branch"), "releases.trained", "--dvc")
    for path in ("data/more.csv", "data/more.csv.dvc"):
        (project / path).unlink()
    assert status == 1, said


def test_what_nothing_names_is_removed(s3: S3, project: Path) -> None:
    """As if a hundred days had gone by: what the release needs stays."""
    forgotten = {"dvc/files/md5/00/" + "0" * 30: "a model", "dvc/branches/forgotten/model.pt2": "a model"}
    before = s3.objects().keys()
    s3.put(**forgotten)
    program = """
from datetime import UTC, datetime, timedelta
from gitops.integrations import dvc_contents
from gitops.releases import gc, named
gc.refuse_shared()
found = gc.select(named.named(), datetime.now(UTC) + timedelta(days=100))
gc.show(found, 90)
for files in found.gone.values():
    dvc_contents.remove(file.path for file in files)
"""
    command: list[str | Path] = [project / ".venv/pipeline/bin/python", "-c", program]
    environment = os.environ | s3.environment("cleaner")
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes: 1 files" in done.stdout
    assert s3.objects().keys() == before


def ask(container: Container, project: Path, name: str, requests: int) -> list[float]:
    """Send requests with ids that begin with `name`, and return the seconds that each took. Raises where one fails."""
    golden = json.loads((project / "package/golden_request.json").read_text())["instances"]
    seconds = []
    for number in range(requests):
        body = json.dumps({"instances": golden[number % len(golden) :][:1]}).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": f"{name}-{number}"}
        begin = time.monotonic()
        address = f"http://{OUTSIDE}:{container.ports[0]}/predictions/{NAME}"
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=20) as answer:
            assert answer.status == 200
        seconds.append(time.monotonic() - begin)
        time.sleep(0.01)
    return seconds


def test_log_arrives_while_it_serves_and_a_stop_loses_nothing(s3: S3, project: Path, tmp_path: Path) -> None:
    """The key comes from a file, as the component request-log has it, and may put objects and nothing else."""
    user = s3.environment("server")
    keys = [f"{name.lower()} = {user.pop(name)}\n" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    (tmp_path / "credentials").write_text(f"[default]\n{''.join(keys)}")
    user["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "credentials")
    with started(project, tmp_path / "home", archive=None, REQUEST_LOG="s3://bucket/log/pods", **user) as container:
        container.wait(lambda: container.probe() == 0, 120)
        ask(container, project, "early", 100)
        container.wait(lambda: len(s3.logged()) == 100, 20)
        ask(container, project, "late", 100)
        begin = time.monotonic()
        assert container.stop() == [0, 0]
        assert time.monotonic() - begin < 15
        assert "request log" not in (container.folder / "log").read_text()
    wanted = [f"{when}-{number}" for when in ("early", "late") for number in range(100)]
    assert sorted(s3.logged()) == sorted(wanted)


def test_outage_costs_no_request_and_what_waits_arrives_later(project: Path, tmp_path: Path) -> None:
    """Down, up again, down at the end: no request fails or waits, and only the end loses what it names."""
    there = S3(free_port(), {"nobody": NOBODY, "owner": NOBODY})  # which asks nobody who they are
    user = there.environment("nobody") | {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}  # not there: no matter
    with started(project, tmp_path / "home", archive=None, REQUEST_LOG="s3://bucket/log", **user) as container:
        container.wait(lambda: container.probe() == 0, 120)
        assert max(ask(container, project, "down", 1000)) < 1
        container.wait(lambda: "The request log cannot be written" in (container.folder / "log").read_text(), 20)
        with serving(there.port, MOTO / "moto_server", "-H", "127.0.0.1", "-p", str(there.port)):
            there.python("nobody", "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')")
            container.wait(lambda: len(there.logged()) == 1000, 30)
            assert len(set(there.logged())) == 1000
        ask(container, project, "lost", 10)
        assert container.stop(20) == [0, 0]
        said = (container.folder / "log").read_text()
        assert "Could not connect to the endpoint" in said
        assert "The last 10 requests are missing from the request log: s3://bucket/log did not accept them" in said


@pytest.mark.parametrize(
    ("user", "secret", "said"),
    [
        ("nobody", None, "The AWS Access Key Id you provided does not exist"),
        ("server", "not-the-secret", "The request signature we calculated does not match"),
        ("retrain", None, "Access Denied"),
    ],
)
def test_wrong_key_is_told_without_the_secret(
    user: str, secret: str | None, said: str, s3: S3, project: Path, tmp_path: Path
) -> None:
    keys = s3.environment(user)
    keys["AWS_SECRET_ACCESS_KEY"] = secret or keys["AWS_SECRET_ACCESS_KEY"]
    with started(project, tmp_path / "home", archive=None, REQUEST_LOG="s3://bucket/log", **keys) as container:
        container.wait(lambda: container.probe() == 0, 120)
        ask(container, project, "wrong", 3)
        container.wait(lambda: said in (container.folder / "log").read_text(), 30)
        told = (container.folder / "log").read_text()
    assert told.count("The request log cannot be written to s3://bucket/log") == 1
    assert keys["AWS_SECRET_ACCESS_KEY"] not in told
    assert not any("wrong" in name for name in s3.logged())


def run(project: Path, user: dict[str, str], module: str, *options: str, **more: str) -> tuple[int, str]:
    """Run a module of the project with these keys; return its exit status and what it says."""
    command: list[str | Path] = [project / ".venv/pipeline/bin/python", "-m", f"gitops.{module}", *options]
    done = subprocess.run(command, cwd=project, env=os.environ | user | more, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def lines(project: Path, name: str) -> str:
    """Return 400 lines of a log: the test rows, answered as the release answers."""
    program = f"""
import json, pandas
test = pandas.read_parquet("data/prepared/test.parquet").drop(columns=["diagnosis", "__group__"])
outputs = pandas.read_parquet("evaluation/predictions.parquet").set_index("row")
version = json.load(open("package/golden_response.json"))["model_version"]
for number in range(400):
    row = test.iloc[number % len(test)]
    output = outputs.loc[row["__row__"]]
    chances = {{name: output["p_" + name] for name in ("benign", "malignant")}}
    known = {{"time": "{datetime.now(UTC).isoformat()}", "request_id": f"{name}-{{number}}", "instance": 0}}
    answer = {{"label": output["prediction"], "probabilities": chances}}
    print(json.dumps(known | {{"model_version": version, "inputs": dict(row.drop("__row__")), "prediction": answer}}))
"""
    python = project / ".venv/pipeline/bin/python"
    done = subprocess.run([python, "-c", program], cwd=project, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def test_monitor_and_retraining_read_log_and_labels(s3: S3, project: Path) -> None:
    """Each with a log that only it reads; how far the monitor has read, and what it found, is stored in the bucket."""
    text = lines(project, "watched")
    labels = "request_id,label\n" + "".join(f"watched-{number},benign\n" for number in range(200))
    s3.put(**{"log/watched/a.jsonl": text[: len(text) // 2], "log/watched/pod/b.jsonl": text, "labels/a.csv": labels})
    s3.put(**{"log/watched/other.txt": "no log"})
    places = {"REQUEST_LOG": "s3://bucket/log/watched", "LABELS": "s3://bucket/labels"}
    status, said = run(project, s3.environment("monitor"), "monitoring.monitor", **places)
    assert status in (0, 3), said
    verdict = json.loads((project / "reports/monitor.json").read_text())
    assert verdict["rows"] > 400 and verdict["performance"]["rows"] >= 200
    offsets = json.loads(s3.objects()["log/watched/monitor-state.json"])["offsets"]
    assert offsets.keys() == {"a.jsonl", "pod/b.jsonl"}
    assert offsets["pod/b.jsonl"] == len(text)

    status, said = run(project, s3.environment("monitor"), "monitoring.monitor", **places)
    assert (status, json.loads((project / "reports/monitor.json").read_text())["rows"]) == (0, 0), said
    written = s3.objects()["log/watched/monitor.prom"]
    assert written == (project / "reports/monitor.prom").read_text() and "model_monitor_status{" in written
    hour = "log/watched/date=2026-01-01/hour=12"
    s3.put(**{f"{hour}/a.jsonl": text})
    status, said = run(project, s3.environment("monitor"), "monitoring.compact", **places)
    assert status == 1 and "REQUEST_LOG is 's3://bucket/log/watched', which cannot be used" in said
    status, said = run(project, s3.environment("compact"), "monitoring.compact", **places)
    assert status == 0, said
    assert [name.rpartition(".")[2] for name in s3.objects() if name.startswith(hour)] == ["parquet"]

    status, said = run(project, s3.environment("retrain"), "monitoring.monitor", **places)
    assert status == 1 and "REQUEST_LOG is 's3://bucket/log/watched', which cannot be used" in said

    program = (
        "from gitops.monitoring import ground_truth; found = ground_truth.read(None, ())\n"
        "print(len(found.rows), dict(found.left_out))"
    )
    command: list[str | Path] = [project / ".venv/pipeline/bin/python", "-c", program]
    environment = os.environ | s3.environment("retrain") | places
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("200 {"), done.stderr


def test_replay_reads_the_log(s3: S3, project: Path) -> None:
    """A branch's role that may read the log and no labels; one that may not says which address it was."""
    s3.put(
        **{"log/replayed/a.jsonl": lines(project, "replayed"), "labels/a.csv": "request_id,label\nreplayed-1,benign\n"}
    )
    program = """
from datetime import UTC, datetime
from gitops.core import params
from gitops.replay import logged
found = logged.read(params.load(), logged.Hidden((), (), None), [], datetime.now(UTC))
print(found.answered == len(found.sample.rows) > 100, found.labels_problem)
"""
    command: list[str | Path] = [project / ".venv/pipeline/bin/python", "-c", program]
    places = {"REQUEST_LOG": "s3://bucket/log/replayed", "LABELS": "s3://bucket/labels"}
    for user, told in (
        ("replay", "True LABELS cannot be read"),
        ("branch", "REQUEST_LOG is 's3://bucket/log/replayed'"),
    ):
        environment = os.environ | s3.environment(user) | places
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert told in done.stdout + done.stderr, done.stdout + done.stderr


def test_drift_metrics_are_served_to_who_may_read_them_alone(s3: S3, project: Path, tmp_path: Path) -> None:
    """In the server's environment, with the keys in a file, as the component drift-metrics has them."""
    text = '# TYPE model_monitor_status gauge\nmodel_monitor_status{model="m",version="v"} 0\n'
    s3.put(**{"log/watched/monitor.prom": text})
    for user, readable in (("drift-metrics", True), ("server", False)):
        keys = s3.environment(user)
        secrets = [f"{name.lower()} = {keys.pop(name)}\n" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        (tmp_path / "credentials").write_text(f"[default]\n{''.join(secrets)}")
        keys |= {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "PYTHONPATH": str(project / "src")}
        port, python = free_port(), project / ".venv/serve/bin/python"
        command: list[str | Path] = [python, "-m", "gitops.serving.server.drift_metrics", str(port)]
        environment = os.environ | keys | {"REQUEST_LOG": "s3://bucket/log/watched"}
        with (tmp_path / user).open("w") as log:
            process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            wanted = "model_monitor_status{" if readable else "PermissionError"
            deadline, found = time.monotonic() + 60, ""
            while wanted not in found:
                assert time.monotonic() < deadline and process.poll() is None, found
                time.sleep(0.2)
                found = (tmp_path / user).read_text() + scraped(port)
            assert f"model_monitor_readable {readable:d}\n" in scraped(port)
            assert (text in found) == readable
        finally:
            process.terminate()
            assert process.wait(20) == 0


def scraped(port: int) -> str:
    """Return what Prometheus would get, or nothing where nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_batch(end: str, s3: S3, project: Path) -> None:
    """Rows that fit, and a file beside them with the one that does not."""
    table = (project / "data/raw.csv").read_text().splitlines(keepends=True)
    tables = {"csv": "".join([*table[:6], "soon" + table[6][table[6].index(",") :], *table[7:]])}
    s3.put(**{"tables/in.csv": tables["csv"]})
    if end == "parquet":
        program = """
import numpy, pandas
table = pandas.read_csv("data/raw.csv")
table.iloc[5, 0] = numpy.inf
table.to_parquet("s3://bucket/tables/in.parquet")
"""
        python, environment = project / ".venv/pipeline/bin/python", os.environ | s3.environment("owner")
        subprocess.run([python, "-c", program], cwd=project, env=environment, check=True)
    places = {"INPUT": f"s3://bucket/tables/in.{end}", "OUTPUT": f"s3://bucket/out/{end}/predicted.{end}"}
    status, said = run(project, s3.environment("batch"), "inference.batch", **places)
    assert status == 0, said
    assert "568 rows predicted" in said and "1 rows were REJECTED" in said
    found = {key: text for key, text in s3.objects().items() if key.startswith(f"out/{end}/")}
    assert found.keys() == {f"out/{end}/predicted.{end}", f"out/{end}/predicted.rejected.{end}"}
    if end == "csv":
        assert len(found["out/csv/predicted.csv"].splitlines()) == 569
        assert found["out/csv/predicted.rejected.csv"].splitlines()[1].startswith('5,"mean radius",')


#: Predicts until the first rows are written, and then waits to be killed: from outside nothing of it is to be seen.
STUCK = """
import time
from gitops.core import artifacts
from gitops.inference import batch
in_order = batch._in_order
def stuck(work, items):
    for result in in_order(work, items):
        yield result
        print("begun", flush=True)
        time.sleep(60)
batch._in_order = stuck
artifacts.run(batch.main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_batch_leaves_no_object(number: signal.Signals, s3: S3, project: Path) -> None:
    s3.put(**{"tables/in.csv": (project / "data/raw.csv").read_text(), "out/killed/yesterday.csv": "of yesterday"})
    places = {"INPUT": "s3://bucket/tables/in.csv", "OUTPUT": "s3://bucket/out/killed/yesterday.csv"}
    python, environment = project / ".venv/pipeline/bin/python", os.environ | s3.environment("batch") | places
    with subprocess.Popen([python, "-c", STUCK], cwd=project, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 1)
    left = {key: text for key, text in s3.objects().items() if key.startswith("out/killed/")}
    assert left == {"out/killed/yesterday.csv": "of yesterday"}


def test_batch_without_a_good_row_leaves_no_output(s3: S3, project: Path) -> None:
    header = (project / "data/raw.csv").read_text().splitlines()[0]
    s3.put(**{"tables/bad.csv": f"{header}\n{','.join(['soon'] * (header.count(',') + 1))}\n"})
    places = {"INPUT": "s3://bucket/tables/bad.csv", "OUTPUT": "s3://bucket/out/none/o.csv"}
    status, said = run(project, s3.environment("batch"), "inference.batch", **places)
    assert (status, said) == (1, "error: none of 1 rows fits: s3://bucket/out/none/o.rejected.csv says why\n")
    assert [key for key in s3.objects() if key.startswith("out/none/")] == ["out/none/o.rejected.csv"]


@pytest.mark.parametrize(
    ("user", "changed", "said"),
    [
        ("batch", {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, "INPUT is 's3://bucket/tables/in.csv'"),
        ("batch", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "INPUT is 's3://bucket/tables/in.csv'"),
        ("batch", {"INPUT": "s3://bucket/tables/none.csv"}, "INPUT is 's3://bucket/tables/none.csv'"),
        ("batch", {"OUTPUT": "s3://bucket/elsewhere/o.csv"}, "OUTPUT is 's3://bucket/elsewhere/o"),
        ("batch", {"OUTPUT": "s3://no-bucket/o.csv"}, "OUTPUT is 's3://no-bucket/o"),
    ],
)
def test_batch_says_which_address_cannot_be_used(
    user: str, changed: dict[str, str], said: str, s3: S3, project: Path
) -> None:
    s3.put(**{"tables/in.csv": (project / "data/raw.csv").read_text()})
    places = {"INPUT": "s3://bucket/tables/in.csv", "OUTPUT": "s3://bucket/out/o.csv"}
    status, printed = run(project, s3.environment(user), "inference.batch", **(places | changed))
    assert status == 1
    assert printed.startswith(f"error: {said}"), printed
    assert s3.environment(user)["AWS_SECRET_ACCESS_KEY"] not in printed
