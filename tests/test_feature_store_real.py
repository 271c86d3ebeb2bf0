"""The feature store for real: a trained project with its online store in SQLite, then in a Redis that fails."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import ROOT, environment, generate, gitops_tests, make
from redis_server import Redis
from servers import NAME, OUTSIDE, Container, free_port, free_ports, post, serving, started

pytestmark = [pytest.mark.real, pytest.mark.full, pytest.mark.skipif(sys.platform != "linux", reason="uses 127.0.0.2")]

#: Prints how many entities Redis has, and a digest of all that it has of them. The shortest key is nobody's.
STATE = """
import hashlib, os, redis
address, _, password = os.environ["FEATURE_STORE_REDIS"].partition(",password=")
host, port = address.split(":")
client = redis.Redis(host, int(port), password=password).pipeline(transaction=False)
client.keys()
[keys] = client.execute()
keys = sorted(keys, key=lambda key: (len(key), key))[1:]
for key in keys:
    client.hgetall(key)
rows = [sorted(row.items()) for row in client.execute()]
print(len(keys), hashlib.sha256(repr([keys, rows]).encode()).hexdigest())
"""

#: Prints what the online store has of some customers, as Feast gives it.
READ = """
import json, sys
from gitops.core import params
from gitops.feature_store import feature_store
settings = params.load()
view = feature_store.describe(feature_store.read_features(settings), settings)
with feature_store.opened(view) as store:
    service = store.get_feature_service(view["service"])
    rows = [{"customer": each} for each in sys.argv[1:]]
    print(json.dumps(store.get_online_features(features=service, entity_rows=rows).to_dict()))
"""

#: More than are written to the store at a time.
CUSTOMERS = 40_000


@pytest.fixture(scope="module")
def made(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a feature store, after its pipeline."""
    project = generate(tmp_path_factory.mktemp("store"), feature_store="yes")
    make(project, "setup")
    make(project, "pipeline")
    return project


@pytest.fixture(scope="module")
def redis(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs Debian's redis-server")
    server = Redis(made, tmp_path_factory.mktemp("redis") / "home")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def newest(made: Path) -> dict[str, dict[str, float]]:
    """What the offline table says of each patient last, which is what the model was trained to be told."""
    with (made / "data/features.csv").open(newline="") as file:
        history = sorted(csv.DictReader(file), key=lambda row: row["event_timestamp"])
    names = [name for name in history[0] if name not in ("patient", "event_timestamp")]
    return {row["patient"]: {name: float(row[name]) for name in names} for row in history}


def module(project: Path, *arguments: str) -> list[str | Path]:
    """Return the command of one of the project's modules that use Feast."""
    return [project / ".venv/features/bin/python", "-m", *arguments]


def run(project: Path, redis: Redis, *arguments: str, folder: Path | None = None, **settings: str) -> tuple[int, str]:
    """Run Python in the environment `features`; return its exit status and what it printed."""
    own = {"PYTHONPATH": str(project / "src"), "FEATURE_STORE_REDIS": redis.address}
    done = subprocess.run(
        [project / ".venv/features/bin/python", *arguments],
        cwd=folder or project,
        env=os.environ | own | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def materialised(project: Path, redis: Redis, *options: str, folder: Path | None = None) -> str:
    """Materialise, and return what was said of how many entities."""
    status, output = run(project, redis, "-m", "gitops.feature_store.materialize", *options, folder=folder)
    assert status == 0, output
    return output.splitlines()[-1].partition(" entities")[0]


@pytest.fixture(scope="module")
def features(made: Path, redis: Redis) -> Iterator[str]:
    """The address of the feature server on Redis."""
    port = free_port()
    environment = ["env", f"FEATURE_STORE_REDIS={redis.address}"]
    with serving(
        port, *environment, *module(made, "gitops.feature_store.feature_server", "--port", str(port)), cwd=made
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def model(made: Path, features: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The model's server, as its image starts it, which asks the feature server."""
    with started(made, tmp_path_factory.mktemp("model") / "home", FEATURE_SERVER=features) as container:
        container.wait(lambda: container.probe() == 0, 180)
        yield container


def predict(model: Container, instances: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    return post(f"http://{OUTSIDE}:{model.ports[0]}/predictions/{NAME}", {"instances": instances})


def ask(features: str, patients: list[str]) -> tuple[int, dict[str, Any]]:
    """Ask the feature server itself."""
    question = {"feature_service": NAME, "entities": {"patient": patients}}
    return post(f"{features}/get-online-features", question)


def timed(model: Container, instances: list[dict[str, Any]]) -> tuple[int, float]:
    """Return a request's status and how long it took."""
    begin = time.monotonic()
    status, _ = predict(model, instances)
    return status, time.monotonic() - begin


def test_the_project_is_right_as_generated(made: Path) -> None:
    """It passes its own checks, and the hook's list has the names of the environment that the default project lacks."""
    make(made, "lint")
    assert json.loads((made / "evaluation/metrics.json").read_text())["metrics"]["roc_auc"]["value"] > 0.95
    assert "Running stage" not in make(made, "pipeline")
    make(made, "test")
    run_tests = subprocess.run(gitops_tests(made, "test_feature_store.py"), cwd=made, env=environment())
    assert run_tests.returncode == 0
    hook = (ROOT / "hooks/pre_gen_project.py").read_text()
    refused = set(re.split(r'"""', hook[hook.index("IMPORTED = set(") :])[1].split())
    program = "import importlib.metadata as m; print(*m.packages_distributions())"
    python = made / ".venv/features/bin/python"
    imported = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    names = {name for name in imported if re.fullmatch(r"[a-z][a-z0-9_]+", name) and "__mypyc" not in name}
    assert names - refused - set(sys.stdlib_module_names) - {NAME} == set()


def test_sqlite(made: Path, newest: dict[str, dict[str, float]]) -> None:
    """As documented for one machine: `make materialize`, the feature server and `make serve`."""
    ids, rows = [{"patient": patient} for patient in newest], list(newest.values())
    assert "569 of 569" in make(made, "materialize")
    online, port = free_ports(2)
    url = f"http://127.0.0.1:{port}/predictions/{NAME}"
    serve: list[str | Path] = [made / ".venv/pipeline/bin/python", "-m", "gitops.serving.serve", "--port", str(port)]
    with serving(port, "env", f"FEATURE_SERVER=http://127.0.0.1:{online}", *serve, cwd=made):
        with serving(online, *module(made, "gitops.feature_store.feature_server", "--port", str(online)), cwd=made):
            status, by_id = post(url, {"instances": ids})
            assert status == 200
            assert by_id["predictions"] == post(url, {"instances": rows})[1]["predictions"]
        assert post(url, {"instances": ids[:1]})[0] == 503
        assert post(url, {"instances": rows[:1]})[0] == 200


def test_the_job_of_the_cluster_materialises(made: Path, redis: Redis, tmp_path: Path) -> None:
    """jobs/start.sh, with the Secret made as k8s/redis says, takes main's table and writes it."""
    (tmp_path / "job").mkdir()
    image = tmp_path / "project"
    shutil.copytree(made, image, ignore=shutil.ignore_patterns(".git", ".venv", "cache", "*.csv", "*.db"))
    (image / ".venv").symlink_to(made / ".venv")
    (redis.settings / "FEATURE_STORE_REDIS").write_text(redis.address)
    script = (made / "jobs/start.sh").read_text().replace("/secrets/", f"{redis.settings}/")
    script = re.sub(r"(?<![\w.])/(job|project)\b", rf"{tmp_path}/\1", script)
    environment = os.environ | {"REPOSITORY": str(made)}
    command = ["sh", "-c", script, "start.sh", "gitops.feature_store.materialize"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "569 of 569 entities" in done.stdout
    assert redis.password not in done.stdout


def test_an_erased_entity_is_in_no_store(
    made: Path, redis: Redis, newest: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    """Its key is gone from Redis, and its rows from both tables; all others are as they were."""
    copy, patient = tmp_path / "project", next(iter(newest))
    shutil.copytree(made, copy, ignore=shutil.ignore_patterns(".venv"), symlinks=True)
    (copy / ".venv").symlink_to(made / ".venv")
    materialised(made, redis)
    keys = int(run(made, redis, "-c", STATE)[1].split()[0])
    tables = {name: (copy / "data" / name).read_text().splitlines() for name in ("raw.csv", "features.csv")}
    command: list[str | Path] = [copy / ".venv/pipeline/bin/python", "-m", "gitops.privacy.erase", "--yes"]
    own = {"PYTHONPATH": str(copy / "src"), "FEATURE_STORE_REDIS": redis.address, "ID": patient}
    for _ in range(2):  # the remote, a folder of the repository, holds the old tables
        done = subprocess.run(command, cwd=copy, env=os.environ | own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert int(run(made, redis, "-c", STATE)[1].split()[0]) == keys - 1
    for name, lines in tables.items():
        kept = [line for line in lines if patient not in line.split(",")]
        assert (copy / "data" / name).read_text().splitlines() == kept and len(kept) < len(lines)
    assert not (copy / ".feast").exists() and redis.password not in done.stdout
    materialised(made, redis)


def test_online_is_offline_and_an_id_is_as_good_as_its_features(
    redis: Redis, features: str, model: Container, newest: dict[str, dict[str, float]]
) -> None:
    status, answer = ask(features, list(newest))
    assert status == 200
    columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    assert columns.pop("patient")["values"] == list(newest)
    for name, column in columns.items():
        assert column["values"] == [row[name] for row in newest.values()]
    assert columns.keys() == next(iter(newest.values())).keys()

    status, by_id = predict(model, [{"patient": patient} for patient in newest])
    assert status == 200
    assert by_id["predictions"] == predict(model, list(newest.values()))[1]["predictions"]
    status, refused = predict(model, [{"patient": "nobody"}])
    assert status == 400
    assert "'nobody'" in refused["errors"][0]["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_redis_keeps_what_it_has(redis: Redis, model: Container, number: int) -> None:
    before = predict(model, [{"patient": "17"}])
    time.sleep(1.5)  # it writes once a second
    redis.stop(number)
    redis.start()
    model.wait(lambda: predict(model, [{"patient": "17"}]) == before, 10)
    assert before[0] == 200


def memory(redis: Redis) -> int:
    """Return how many bytes of maxmemory are used."""
    return int(re.findall(r"used_memory:(\d+)", redis("INFO", "memory"))[0])


def test_an_emptied_redis_is_filled_by_the_next_hourly_run(made: Path, redis: Redis, model: Container) -> None:
    redis.lose()
    model.wait(lambda: predict(model, [{"patient": "17"}])[0] == 400, 10)
    empty = memory(redis)
    assert materialised(made, redis, "--days", "7") == "569 of 569"
    assert 600 < (memory(redis) - empty) / 570 < 850  # docs/system-design.md
    assert materialised(made, redis, "--days", "7") == "0 of 569"
    assert predict(model, [{"patient": "17"}])[0] == 200


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_without_redis_only_ids_are_refused_and_nobody_waits(
    redis: Redis, features: str, model: Container, newest: dict[str, dict[str, float]], number: int
) -> None:
    """Neither a Redis that is gone nor one that is silent makes a probe fail or a request hang."""
    assert redis.process is not None
    redis.process.send_signal(number)
    begin = time.monotonic()
    status, answer = ask(features, ["17"])
    assert (status, answer) == (503, {"detail": "the online store does not answer"})
    assert time.monotonic() - begin < 2
    assert not redis.probe()

    status, took = timed(model, [{"patient": "17"}])
    assert status == 503
    assert took < 2.5
    assert timed(model, [newest["17"]])[0] == 200
    assert model.probe() == 0
    with urllib.request.urlopen(f"{features}/health", timeout=2) as response:
        assert response.status == 200

    if number == signal.SIGSTOP:
        redis.process.send_signal(signal.SIGCONT)
    else:
        redis.process.wait(10)
        redis.start()
    model.wait(lambda: predict(model, [{"patient": "17"}])[0] == 200, 10)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("127.0.0.1:{port},password=pWrongHush", "127.0.0.1:{port}: invalid username-password pair"),
        ("127.0.0.1:{port}", "127.0.0.1:{port}: Protocol error: unauthenticated"),
        ("127.0.0.1:{closed},password=pWrongHush", "127.0.0.1:{closed}: Error 111 connecting to 127.0.0.1:{closed}"),
    ],
)
@pytest.mark.parametrize("program", ["materialize", "feature_server"])
def test_a_wrong_address_says_so_and_shows_no_password(
    made: Path, redis: Redis, program: str, setting: str, message: str
) -> None:
    ports = {"port": redis.port, "closed": free_port()}
    status, output = run(
        made, redis, "-m", f"gitops.feature_store.{program}", FEATURE_STORE_REDIS=setting.format(**ports)
    )
    assert status == 1
    assert f"FEATURE_STORE_REDIS, {message.format(**ports)}" in output
    assert "Hush" not in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def large(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of CUSTOMERS and its settings; all times are long ago, later than ttl_days allows."""
    folder = tmp_path_factory.mktemp("large")
    settings = yaml.safe_load((made / "params.yaml").read_text())
    settings["data"] |= {"target": "left", "positive": None, "id": "customer", "timestamp": "asked"}
    settings["feature_store"] = {"labels": "labels.csv", "features": "features.csv", "ttl_days": 1}
    settings["package"] = {"model_name": "large"}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "features.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", "event_timestamp", "age", "member"])
        for number in range(CUSTOMERS):
            for day in (1, 2):
                member = ["true", "false", ""][number % 3]
                writer.writerow([number, f"2025-03-{day:02}T12:00:00Z", number / 7 + day if number % 5 else "", member])
    return folder


def state(project: Path, redis: Redis) -> tuple[int, str]:
    """Return how many entities are in Redis, and a digest of all that it has of them."""
    status, output = run(project, redis, "-c", STATE)
    assert status == 0, output
    count, digest = output.split()
    return int(count), digest


def test_interrupted_or_at_once_the_end_is_the_same(made: Path, redis: Redis, large: Path) -> None:
    redis.lose()
    assert materialised(made, redis, folder=large) == f"{CUSTOMERS} of {CUSTOMERS}"
    wanted = state(made, redis)
    assert wanted[0] == CUSTOMERS

    def begun() -> subprocess.Popen[bytes]:
        own = {"PYTHONPATH": str(made / "src"), "FEATURE_STORE_REDIS": redis.address}
        command = module(made, "gitops.feature_store.materialize")
        return subprocess.Popen(command, cwd=large, env=os.environ | own, stdout=subprocess.DEVNULL)

    redis.lose()
    killed = begun()
    while int(redis("DBSIZE")) < 100:
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert int(redis("DBSIZE")) < CUSTOMERS
    assert materialised(made, redis, "--days", "7", folder=large) == f"{CUSTOMERS} of {CUSTOMERS}"
    assert state(made, redis) == wanted

    redis.lose()
    assert [process.wait(300) for process in (begun(), begun())] == [0, 0]
    assert state(made, redis) == wanted
    assert materialised(made, redis, "--days", "7", folder=large) == f"0 of {CUSTOMERS}"


def test_a_full_redis_is_an_error_and_forgets_nothing(made: Path, redis: Redis, large: Path) -> None:
    redis.lose()
    assert materialised(made, redis) == "569 of 569"
    before = state(made, redis)
    redis("CONFIG", "SET", "maxmemory", "4mb")
    status, output = run(made, redis, "-m", "gitops.feature_store.materialize", folder=large)
    assert status == 1
    assert "command not allowed when used memory > 'maxmemory'" in output
    assert "Traceback" not in output
    redis("CONFIG", "SET", "maxmemory", "700mb")
    assert materialised(made, redis, "--days", "7", folder=large) == f"{CUSTOMERS} of {CUSTOMERS}"
    assert state(made, redis)[0] == before[0] + CUSTOMERS + 1


def test_corrected_rows_and_new_columns_get_there(made: Path, redis: Redis, large: Path) -> None:
    """Also where their time is in Redis. What is missing is told from what was not written; old rows are given."""
    redis.lose()
    materialised(made, redis, folder=large)
    table = (large / "features.csv").read_text().splitlines()
    table[0] += ",plan"
    changed = [f"{line},gold".replace("1,2025-03-02T12:00:00Z,", "1,2025-03-02T12:00:00Z,9") for line in table[1:]]
    (large / "features.csv").write_text("\n".join([table[0], *changed]))

    def online(*customers: str) -> dict[str, list[Any]]:
        status, output = run(made, redis, "-c", READ, *customers, folder=large)
        assert status == 0, output
        values: dict[str, list[Any]] = json.loads(output.splitlines()[-1])
        return values

    before = online("1", "2", "5", "no")
    assert before["age"] == [pytest.approx(1 / 7 + 2), pytest.approx(2 / 7 + 2), float("inf"), None]
    assert before["member"] == ["false", " ", " ", None]
    assert before["plan"] == [None] * 4
    assert materialised(made, redis, "--days", "7", folder=large) == f"{CUSTOMERS} of {CUSTOMERS}"
    after = online("1", "2", "no")
    assert after["age"][0] > 90
    assert after["age"][1:] == [pytest.approx(2 / 7 + 2), None]
    assert after["plan"] == ["gold", "gold", None]
