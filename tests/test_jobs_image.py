"""The jobs' image, built by buildah, and what a cluster runs in it, as a release's manifests say.

S3, Git over HTTP, PostgreSQL and Redis are there too, on this machine.
"""

from __future__ import annotations

import base64
import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from images import PACKAGES, Buildah, debian
from postgres import postgres, wait_until
from projects import ROOT, generate, make, tracked
from rendered_pods import Cluster
from servers import free_port, serving

pytestmark = [pytest.mark.real, pytest.mark.full, pytest.mark.root]

SLUG, MODEL = "breast-cancer", "breast_cancer"
SERVER = f"ghcr.io/your-organisation/{SLUG}"
TRIALS = 6

TOKEN, REDIS, DATABASE = "a token of GitHub's", "pa-password-of-redis", "p@ss/word:%41 with 'all' sorts"
KEYS = {"AWS_ACCESS_KEY_ID": "the-key-of-the-jobs", "AWS_SECRET_ACCESS_KEY": "what goes with the key"}

#: What must not get into the image, though it lies in the folder that it is built from.
STRAY = [".env", ".dvc/config.local", ".dvc/cache/x", ".dvc/tmp/x", ".feast/online.db", "data/x.json", "key.json"]
STRAY += ["labels/x.csv", "mlruns/x", "monitoring/x", "requests/x.jsonl", "src/breast_cancer/__pycache__/x", "tune.db"]

#: What the image must hold beside code.
NEEDED = {".dvc/config", "data/appended.json", "data/features.csv.dvc", "data/raw.csv.dvc", "dvc.lock", "dvc.yaml"}

UNWANTED = re.compile(r"pip[\d.]*|uvx?|gcc.*|cc|c\+\+|ld|make|curl|wget")

#: Writes the test rows as a table for `batch`, and as a request log whose columns `changed` are out of proportion.
ROWS = """
import io, json, sys
from datetime import UTC, datetime
from pathlib import Path
import fsspec
from gitops.core import artifacts
version, bucket, name, changed = sys.argv[1:]
schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
names = [feature["name"] for feature in schema["features"]]
test = artifacts.read_parquet(Path("data/prepared/test.parquet")).set_index(artifacts.ROW)
out = artifacts.read_parquet(artifacts.PREDICTIONS)
out = out[out["split"] == "test"].set_index("row").loc[test.index]
with fsspec.open(f"{bucket}/input.parquet", "wb") as file:
    test[names].reset_index().rename(columns={artifacts.ROW: "patient_row"}).to_parquet(file)
lines = []
for number, row in enumerate(test.index):
    inputs = {column: float(test.at[row, column]) for column in names}
    inputs |= {column: 3 * inputs[column] for column in changed.split(",") if column}
    shares = {label: float(out.at[row, f"p_{label}"]) for label in schema["target"]["classes"]}
    lines.append({"time": datetime.now(UTC).isoformat(), "request_id": f"{name}-{number}", "instance": 0,
                  "model_version": version, "inputs": inputs,
                  "prediction": {"label": out.at[row, "prediction"], "probabilities": shares}})
with fsspec.open(f"{bucket}/requests/{name}.jsonl", "w") as file:
    file.write("".join(json.dumps(line) + "\\n" for line in lines))
print(len(lines))
"""

#: Prints what `batch` wrote, and what the pipeline predicted for the same rows.
PREDICTED = """
import json, sys
from pathlib import Path
import fsspec, pandas
from gitops.core import artifacts
with fsspec.open(sys.argv[1], "rb") as file:
    found = pandas.read_parquet(file)
out = artifacts.read_parquet(artifacts.PREDICTIONS).set_index("row")
wanted = out.loc[found["patient_row"], "p_malignant"].to_numpy()
apart = float(abs(found["p_malignant"].to_numpy() - wanted).max())
print(json.dumps({"rows": len(found), "versions": sorted(set(found["model_version"])), "apart": apart}))
"""

#: Prints the sample of the monitor's status that lies beside the log.
STATUS = """
import sys, fsspec
with fsspec.open(f"{sys.argv[1]}/requests/monitor.prom", "rt") as file:
    [line] = [line for line in file if line.startswith("model_monitor_status{")]
print(line.strip())
"""

STUDY = """
import json, optuna, sys
[name] = optuna.get_all_study_names(sys.argv[1])
trials = optuna.load_study(study_name=name, storage=sys.argv[1]).trials
print(json.dumps([trial.state.name for trial in trials]))
"""


class World:
    """The project, released to a private repository with data in S3, and what its jobs reach."""

    def __init__(self, project: Path, bucket: str) -> None:
        self.project, self.bucket = project, bucket

    def python(self, program: str, *arguments: str) -> str:
        """Run a program in the project's environment and return its last line."""
        command = [str(self.project / ".venv/pipeline/bin/python"), "-c", program, *arguments]
        done = subprocess.run(command, cwd=self.project, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    def git(self, *arguments: str) -> str:
        """Run git in the project and return what it says."""
        done = subprocess.run(["git", *arguments], cwd=self.project, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")
        self.git("push", "--quiet", "origin", "main")

    def released(self, path: str) -> str:
        return self.git("show", f"origin/env/production:{path}")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder of bare repositories, and where they are to be had by HTTP with TOKEN alone."""
    folder = tmp_path_factory.mktemp("repositories")
    wanted = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        git_server = importlib.import_module("git_server")

    class Private(git_server.GitHandler):  # type: ignore[misc, name-defined]
        root = folder

        def answer(self, body: bytes) -> None:
            if self.headers["Authorization"] == wanted:
                super().answer(body)
                return
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Private) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """S3, for this process and what it starts; yields a bucket's address."""
    port = free_port()
    moto = ROOT / ".venv/moto/bin"
    endpoint = f"http://127.0.0.1:{port}"
    create = f"import boto3; boto3.client('s3', endpoint_url='{endpoint}').create_bucket(Bucket='bucket')"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint}).items():
            patch.setenv(name, value)
        with serving(port, moto / "moto_server", "-H", "127.0.0.1", "-p", str(port)):
            subprocess.run([moto / "python", "-c", create], check=True)
            yield "s3://bucket"


@pytest.fixture(scope="module")
def world(
    identity: None,
    storage: str,
    repositories: tuple[Path, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    """A project with a feature store whose overlay has the jobs, trained shortly and released."""
    folder, address = repositories
    project = generate(tmp_path_factory.mktemp("jobs"), feature_store="yes", dvc_remote=f"{storage}/dvc")
    world = World(project, storage)
    change(project / "params.yaml", r"(?m)^  epochs: \d+", "  epochs: 30")
    for component in ("jobs", "feature-store", "request-log", "drift-metrics"):
        overlay = project / "k8s/overlays/production/kustomization.yaml"
        change(overlay, rf"(?m)^  # (- ../../components/{component}) .*", r"  \1")
    settings = {
        "INPUT": f"{storage}/input.parquet",
        "OUTPUT": f"{storage}/predictions.parquet",
        "REQUEST_LOG": f"{storage}/requests",
        "LABELS": f"{storage}/labels",
    }
    for name, value in settings.items():
        change(project / "k8s/components/jobs/settings.env", rf"(?m)^{name}=.*", f"{name}={value}")
    change(
        project / "k8s/components/request-log/settings.env", "(?m)^REQUEST_LOG=.*", f"REQUEST_LOG={storage}/requests"
    )
    for component, more in (("jobs", f"TRIALS={TRIALS}\n"), ("request-log", "")):
        with (project / f"k8s/components/{component}/settings.env").open("a") as file:
            file.write(f"{more}AWS_ENDPOINT_URL={os.environ['AWS_ENDPOINT_URL']}\n")
    for path in ("jobs/settings.env", "feature-store/feature-server.yaml", "feature-store/materialize.yaml"):
        change(project / "k8s/components" / path, rf"https://github.com/.*/{SLUG}.git", f"{address}/origin.git")
    world.git("init", "--quiet", "--bare", "--initial-branch=main", str(folder / "origin.git"))
    world.git("remote", "add", "origin", str(folder / "origin.git"))
    world.commit("Run jobs on the cluster")
    make(project, "pipeline")
    world.commit("Train")
    make(project, "verify")
    make(project, "gate")
    make(project, "plan")
    make(project, "deploy")
    return world


def change(path: Path, pattern: str, text: str) -> None:
    """Replace a pattern in a file, which must have it."""
    changed, count = re.subn(pattern, text, path.read_text())
    assert count, f"{path} has no {pattern}"
    path.write_text(changed)


@pytest.fixture(scope="module")
def base(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    return debian(buildah, tmp_path_factory.mktemp("jobs-base"), "localhost/jobs-base", PACKAGES | {"git"})


@pytest.fixture(scope="module")
def image(buildah: Buildah, base: str, world: World) -> str:
    """The jobs' image, built from a folder with things in it that are nobody's business."""
    for path in STRAY:
        (world.project / path).parent.mkdir(parents=True, exist_ok=True)
        (world.project / path).write_text("not for the image")
    try:
        return buildah.build(world.project, "jobs/Containerfile", "localhost/jobs:1", BASE=base)
    finally:
        for path in STRAY:
            (world.project / path).unlink()


@pytest.fixture(scope="module")
def cluster(buildah: Buildah, base: str, image: str, world: World, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster with what Argo CD would apply, and both images."""
    names = world.git("ls-tree", "--name-only", "origin/env/production:manifests").split()
    objects = [yaml.safe_load(world.released(f"manifests/{name}")) for name in names]
    secrets = {f"{SLUG}-jobs": KEYS | {"GITHUB_TOKEN": TOKEN}}
    keys = "".join(f"{name.lower()} = {value}\n" for name, value in KEYS.items())
    secrets[f"{SLUG}-drift-metrics"] = {"credentials": f"[default]\n{keys}"}
    secrets[f"{SLUG}-feature-store"] = KEYS | {"GITHUB_TOKEN": TOKEN}
    cluster = Cluster(objects, {}, secrets, tmp_path_factory.mktemp("cluster"))
    cluster.add_image(f"{SERVER}-jobs", buildah, image)
    server = buildah.build(world.project, "serving/Containerfile", "localhost/server:1", BASE=base)
    cluster.add_image(SERVER, buildah, server)
    return cluster


def test_image_holds_what_jobs_need_and_nothing_else(buildah: Buildah, image: str, world: World) -> None:
    root = buildah.files(image)
    project = root / "project"
    files = {
        str(path.relative_to(project)) for path in project.rglob("*") if path.is_file() and ".venv" not in path.parts
    }
    assert files >= NEEDED
    assert not files - {*tracked(world.project)}
    assert not {path for path in files if path.startswith((".git/", ".github/", "docs/", "tests/", "k8s/", "package/"))}
    assert {path.name for path in (project / ".venv").iterdir()} == {"pipeline", "validate", "features"}
    folders = [root / "usr/bin", root / "usr/local/bin", *(project / ".venv").glob("*/bin")]
    programs = {path.name for folder in folders if folder.exists() for path in folder.iterdir()}
    assert {"git", "sh", "python3"} <= programs
    assert not [name for name in programs if UNWANTED.fullmatch(name)]
    assert not [*root.rglob("ensurepip/__main__.py"), *root.rglob("site-packages/pip")]
    writable = [
        path
        for path in root.rglob("*")
        if not path.is_symlink() and (path.stat().st_uid == 1000 or path.stat().st_mode & 0o002)
    ]
    assert {str(path.relative_to(root)) for path in writable} <= {"job", "tmp", "var/tmp", "run/lock", "dev/shm"} | {
        str(path.relative_to(root)) for path in (root / "job").iterdir()
    }


def test_other_code_is_another_last_layer_alone(buildah: Buildah, base: str, image: str, world: World) -> None:
    module = world.project / "src/gitops/inference/batch.py"
    before = module.read_text()
    try:
        module.write_text(f"{before}\n# changed\n")
        other = buildah.build(world.project, "jobs/Containerfile", "localhost/jobs:2", BASE=base)
    finally:
        module.write_text(before)
    first, second = (buildah.config(name)["rootfs"]["diff_ids"] for name in (image, other))
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]


def test_batch(cluster: Cluster, world: World) -> None:
    rows = int(world.python(ROWS, version(world), world.bucket, "quiet", ""))
    pod = cluster.pod("CronJob", f"{SLUG}-batch")
    assert pod.run("model")[0] == 0, pod.log()
    status, said = pod.run()
    assert status == 0, said
    assert f"{rows} rows predicted by {version(world)}" in said
    found = json.loads(world.python(PREDICTED, f"{world.bucket}/predictions.parquet"))
    assert (found["rows"], found["versions"]) == (rows, [version(world)])
    assert found["apart"] < 1e-5


def test_monitor(cluster: Cluster, world: World) -> None:
    """No drift at first; then requests come that the model was not trained on, and the Job must not be tried again."""
    world.python(ROWS, version(world), world.bucket, "quiet", "")
    status, said = cluster.pod("CronJob", f"{SLUG}-monitor").run()
    assert status == 0 and "✅ OK" in said, said
    metrics = world.python(STATUS, world.bucket)
    assert metrics.endswith(" 0")
    world.python(ROWS, version(world), world.bucket, "drifted", "mean texture,worst texture")
    status, said = cluster.pod("CronJob", f"{SLUG}-monitor").run()
    assert status == 3 and "feature drift: mean texture, worst texture" in said, said
    assert world.python(STATUS, world.bucket) == f"{metrics.removesuffix(' 0')} 1"
    [job] = [item for item in cluster.objects if item["metadata"]["name"] == f"{SLUG}-monitor"]
    [rule] = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [3])


def test_what_the_monitor_found_is_served_to_prometheus(cluster: Cluster, world: World) -> None:
    """By the server's image, with the keys of a Secret of its own; the log's address is that of request-log."""
    wanted, port = world.python(STATUS, world.bucket), free_port()
    pod = cluster.pod("Deployment", f"{SLUG}-drift-metrics")
    with pod.running("drift-metrics", str(port)) as process:
        wait_until(lambda: ask(f"http://127.0.0.1:{port}/health") != b"", process)
        wait_until(lambda: wanted.encode() in ask(f"http://127.0.0.1:{port}/metrics"), process)


def test_tune(cluster: Cluster, world: World) -> None:
    """Two workers fill one study; without a database they would not know of each other, and do not begin."""
    pod = cluster.pod("CronJob", f"{SLUG}-tune")
    status, said = pod.run()
    assert status != 0 and "TUNE_STORAGE" in said, said
    with postgres("tune", DATABASE) as reach:
        password = quote(DATABASE, safe="")
        address = f"postgresql://tune:{password}@127.0.0.1:{reach['PGPORT']}/tune"
        cluster.secrets[f"{SLUG}-jobs"]["TUNE_STORAGE"] = f"{address}\n"
        pods = [cluster.pod("CronJob", f"{SLUG}-tune") for _ in range(2)]
        workers = [pod.start() for pod in pods]
        statuses = [worker.wait(600) for worker in workers]
        assert statuses == [0, 0], [pod.log() for pod in pods]
        states = json.loads(world.python(STUDY, address.replace("://", "+psycopg2://", 1)))
    ended = states.count("COMPLETE") + states.count("PRUNED")
    assert TRIALS <= ended <= TRIALS + 1 and states[0] == "COMPLETE", states
    assert all("trial" in pod.log() for pod in pods)


def test_features_are_written_and_answered(cluster: Cluster, world: World) -> None:
    """All of them after a release, then those of the last days; the server is started twice in its pod."""
    if not (redis := shutil.which("redis-server")):
        pytest.skip("needs redis-server")
    port, listen = free_port(), free_port()
    secret = cluster.secrets[f"{SLUG}-feature-store"]
    secret |= {"FEATURE_STORE_REDIS": f"127.0.0.1:{port},password={REDIS}"}
    secret |= {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
    settings = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--requirepass", REDIS]
    with serving(port, redis, *settings):
        status, said = cluster.pod("Job", f"{SLUG}-backfill").run()
        assert status == 0 and "569 of 569 entities" in said, said
        status, said = cluster.pod("CronJob", f"{SLUG}-materialize").run()
        assert status == 0 and "0 of 569 entities" in said, said
        pod = cluster.pod("Deployment", f"{SLUG}-feature-server")
        assert pod.run("model")[0] == 0, pod.log()
        patient, newest = somebody(world)
        question = json.dumps({"feature_service": MODEL, "entities": {"patient": [patient]}}).encode()
        for _ in range(2):
            with pod.running("feature-server", "--host", "127.0.0.1", "--port", str(listen)) as process:
                wait_until(lambda: ask(f"http://127.0.0.1:{listen}/health") != b"", process)
                answer = json.loads(ask(f"http://127.0.0.1:{listen}/get-online-features", question))
            values = [result["values"][0] for result in answer["results"]]
            found = dict(zip(answer["metadata"]["feature_names"], values, strict=True))
            assert {name: found[name] for name in newest} == newest
        pod.log()


def version(world: World) -> str:
    return str(json.loads(world.released("release.json"))["model"]["version"])


def somebody(world: World) -> tuple[str, dict[str, float]]:
    """Return a patient, and the newest features of the table."""
    with (world.project / "data/features.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["event_timestamp"])
    newest = rows[-1]
    del newest["event_timestamp"]
    return newest.pop("patient"), {name: float(text) for name, text in newest.items()}


def ask(url: str, body: bytes | None = None) -> bytes:
    """Return the answer of the feature server, or nothing where it does not listen yet."""
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read()) or b"null"
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read()) from error
    except OSError:
        return b""
