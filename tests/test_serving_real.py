"""The server of a trained project, started as its image starts it: readiness, stops, faults and hostile requests."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from projects import generate, make

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and 127.0.0.2")]

NAME = "breast_cancer"

#: Stands for the pod's address: what listens on 127.0.0.1 alone is not reached through it.
OUTSIDE = "127.0.0.2"


@pytest.fixture(scope="module")
def project(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project after a short training."""
    project = generate(tmp_path_factory.mktemp("serving"))
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", "  epochs: 30", settings))
    make(project, "pipeline")
    return project


@dataclass
class Container:
    """A started server: its folder, its process, and the ports of predictions, management and metrics."""

    folder: Path
    process: subprocess.Popen[bytes]
    ports: list[int]

    def probe(self) -> int:
        """Run what Kubernetes runs, and return its exit status."""
        archive = self.folder / f"model-store/{NAME}.mar"
        command = [sys.executable, str(self.folder / "probe.py"), f"http://{OUTSIDE}:{self.ports[0]}", str(archive)]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        connection = http.client.HTTPConnection(OUTSIDE, self.ports[0], timeout=20)
        try:
            connection.request(method, path, body, headers or {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def ping(self) -> int:
        """Return the status of /ping, or 0 where nothing answers."""
        try:
            return self.request("GET", "/ping")
        except OSError:
            return 0

    def wait(self, what: Callable[[], Any], seconds: float) -> float:
        """Wait until something is the case, and return how long it took."""
        begin = time.monotonic()
        while not what():
            log = (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() - begin < seconds, f"not within {seconds} s: {log}"
            time.sleep(0.1)
        return time.monotonic() - begin

    def worker(self) -> int:
        """Return the process id of the Python worker, or 0 where there is none."""
        found = subprocess.run(
            ["pgrep", "-g", str(self.process.pid), "-f", "model_service_worker"], capture_output=True, text=True
        ).stdout.split()
        return int(found[0]) if found else 0


@contextmanager
def started(
    project: Path, folder: Path, *wrapper: str, archive: Path | None = None, **environment: str
) -> Iterator[Container]:
    """Lay the image's files out in `folder`, run the image's command, and leave no process."""
    (folder / "model-store").mkdir(parents=True)
    containerfile = (project / "serving/Containerfile").read_text()
    for path in re.findall(r"serving/\S+", next(re.finditer(r"(?m)^COPY serving/.*", containerfile))[0]):
        shutil.copy(project / path, folder)
    shutil.copy(archive or project / f"package/{NAME}.mar", folder / f"model-store/{NAME}.mar")
    ports = free_ports()
    settings = (folder / "config.properties").read_text()
    for number, port in zip((8080, 8081, 8082), ports, strict=False):
        settings = settings.replace(f":{number}\n", f":{port}\n")
    settings = settings.replace("//0.0.0.0:", f"//{OUTSIDE}:")
    grpc = f"\ngrpc_inference_port={ports[3]}\ngrpc_management_port={ports[4]}\n"
    (folder / "config.properties").write_text(settings + grpc)
    for declared in ("tmp", "logs"):
        (folder / declared).mkdir()
    ours = {"TEMP": "tmp", "TMPDIR": "tmp", "LOG_LOCATION": "logs", "METRICS_LOCATION": "logs"}
    entry = json.loads(containerfile.rpartition("ENTRYPOINT ")[2])
    command = [*wrapper, str(project / ".venv/serve/bin" / entry[0]), *entry[1:]]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TS_", "PYTHON"))}
    places = {key: str(folder / value) for key, value in ours.items()}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=inherited | places | {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder)} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield Container(folder, process, ports)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports() -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def repacked(project: Path, target: Path, **changed: str) -> Path:
    """Write the project's archive to `target` with other texts in some files (NAME for NAME.py)."""
    with zipfile.ZipFile(project / f"package/{NAME}.mar") as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            content = changed.get(item.filename.removesuffix(".py"), "").encode() or old.read(item)
            new.writestr(item, content)
    return target


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with started(project, tmp_path_factory.mktemp("server") / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        yield container


def test_only_a_loaded_model_is_ready_and_a_killed_worker_comes_back(project: Path, tmp_path: Path) -> None:
    """/ping answers while the model loads; the readiness probe does not, also not after the worker was killed."""
    handler = (project / "serving/handler.py").read_text()
    slow = handler.replace("        self.model = ", "        import time\n        time.sleep(6)\n        self.model = ")
    assert slow != handler
    archive = repacked(project, tmp_path / "slow.mar", handler=slow)
    with started(project, tmp_path / "home", archive=archive) as container:
        container.wait(lambda: container.ping() == 200, 60)
        assert container.probe() != 0
        container.wait(lambda: container.probe() == 0, 60)
        first = container.worker()
        os.kill(first, signal.SIGKILL)
        assert container.probe() != 0
        container.wait(lambda: container.probe() == 0, 60)
        assert container.worker() not in (0, first)


def test_broken_handler_never_becomes_ready_and_fails_liveness(project: Path, tmp_path: Path) -> None:
    archive = repacked(project, tmp_path / "broken.mar", handler="raise RuntimeError('broken')\n")
    with started(project, tmp_path / "home", archive=archive) as container:
        probes: list[int] = []

        def unhealthy() -> bool:
            probes.append(container.probe())
            return container.ping() == 500

        assert container.wait(unhealthy, 60) < 60
        assert 0 not in probes
        time.sleep(5)
        assert container.ping() == 500


def test_another_model_does_not_start(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "home", MODEL_SHA256="0" * 64) as container:
        container.wait(lambda: container.ping() == 500, 60)
        assert container.probe() != 0
        assert "not the released model" in (container.folder / "log").read_text()


def test_nothing_is_written_outside_the_declared_folders(project: Path, tmp_path: Path) -> None:
    """Every file system but /tmp and /logs is read-only, as in the cluster."""
    folder = tmp_path / "home"
    read_only = (
        f'cd "{folder}"; for kept in tmp logs; do mount --bind "$kept" "$kept" || exit 99; done; '
        "while read -r _ place kind _; do case $place in "
        f'{folder}/*|/proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" || exit 99 ;; esac; '
        'done < /proc/self/mounts; cd "$PWD" && ! touch "$PWD/x" 2>/dev/null || exit 98; exec "$@"'
    )
    isolated = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare with user namespaces")
    with started(project, folder, *isolated, "sh", "-c", read_only, "sh") as container:
        container.wait(lambda: container.process.poll() is not None or container.probe() == 0, 60)
        assert container.process.poll() is None, (folder / "log").read_text()
        container.process.terminate()
        assert container.process.wait(10) == 0


def test_management_is_closed_from_outside(server: Container) -> None:
    inference, management, metrics, *grpc = server.ports
    for port in (inference, metrics):
        socket.create_connection((OUTSIDE, port), timeout=2).close()
    for port in (management, *grpc):
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((OUTSIDE, port), timeout=2)
    assert server.request("GET", "/models") in (404, 405)
    assert server.request("POST", "/models?url=file:///etc/passwd") in (404, 405)


def hostile(project: Path) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Requests made from the schema: a valid one with a value, key, header, method, path or bytes changed."""
    chance = random.Random(1)
    golden = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
    path = f"/predictions/{NAME}"
    json_type = {"Content-Type": "application/json"}
    values: list[Any] = [
        None,
        True,
        "",
        "x" * 5000,
        -1,
        10**400,
        1e308,
        "NaN",
        [],
        {},
        [[1]],
        "\ud800",
        "\0",
        float("nan"),
        float("inf"),
    ]
    types = [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "text/plain",
        "",
        "%",
    ]
    paths = [
        *(f"{path}/9.9", "/predictions", "/predictions/%00", "/predictions/../ping", f"/models/{NAME}/invoke", "/%zz"),
        *("//", f"/explanations/{NAME}", f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer", "/wfpredict/x"),
        *(f"/{NAME}/predict", f"/invocations?model_name={NAME}&body=%ff", path + "?" + "a=1&" * 500),
    ]
    while True:
        row = dict(golden)
        row[chance.choice([*golden, "", "x", "\u2028"])] = chance.choice(values)
        body = json.dumps({"instances": [golden] * chance.randrange(3) + [row]}).encode()
        cut = bytearray(body[: chance.randrange(len(body))])
        for _ in range(chance.randrange(8)):
            cut.insert(chance.randrange(len(cut) + 1), chance.randrange(256))
        kind = chance.randrange(10)
        if kind < 5:
            yield "POST", path, body, json_type
        elif kind < 7:
            yield "POST", path, bytes(cut), json_type
        elif kind == 7:
            yield (
                "POST",
                path,
                chance.choice([body, bytes(cut), b"a=%zz&=", b""]),
                {"Content-Type": chance.choice(types)},
            )
        elif kind == 8:
            yield (
                chance.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"]),
                chance.choice(paths),
                body,
                json_type,
            )
        else:
            headers = {"X-" + "y" * chance.randrange(1, 9000): "\xff" * chance.randrange(200)}
            yield "POST", path, body, json_type | headers


def test_hostile_requests_get_2xx_or_4xx_and_harm_nothing(project: Path, server: Container) -> None:
    source = hostile(project)
    requests = [next(source) for _ in range(10_000)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda request: server.request(*request), requests))
    wrong = [
        (status, request) for status, request in zip(statuses, requests, strict=True) if status // 100 not in (2, 4)
    ]
    assert not wrong, (len(wrong), Counter(status for status, _ in wrong), [str(entry)[:300] for entry in wrong[:20]])
    assert {200, 400, 404} <= set(statuses)
    assert server.probe() == 0


def test_sigterm_under_load_loses_no_accepted_request(project: Path, tmp_path: Path) -> None:
    """Clients that keep their connections, and clients that open one for each request."""
    with started(project, tmp_path / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        told, lost, answered = threading.Event(), list[str](), Counter[str]()
        golden = (project / "package/golden_request.json").read_bytes()

        def client(keeps: bool) -> None:
            while True:
                connection = http.client.HTTPConnection(OUTSIDE, container.ports[0], timeout=20)
                try:
                    connection.connect()
                except OSError:
                    return
                late = told.is_set()  # may not have been accepted
                try:
                    while True:
                        connection.request("POST", f"/predictions/{NAME}", golden, {"Content-Type": "application/json"})
                        response = connection.getresponse()
                        response.read()
                        answered[f"{response.status} {'after' if told.is_set() else 'before'}"] += 1
                        if not keeps or response.getheader("Connection", "").strip() == "close":
                            break
                except (OSError, http.client.HTTPException) as error:
                    if not late:
                        lost.append(repr(error))
                finally:
                    connection.close()

        clients = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(16)]
        for thread in clients:
            thread.start()
        time.sleep(2)
        told.set()
        begin = time.monotonic()
        container.process.terminate()
        assert container.process.wait(10) == 0
        assert time.monotonic() - begin < 10
        for thread in clients:
            thread.join()
        assert lost == []
        assert answered.keys() == {"200 before", "200 after"}
        assert container.worker() == 0


def test_idle_connections_do_not_hold_a_stop_up(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        with socket.create_connection((OUTSIDE, container.ports[0])):
            container.process.terminate()
            assert container.process.wait(10) == 0
