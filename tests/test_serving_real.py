"""The server of a trained project, started as its image starts it: readiness, stops, faults and hostile requests."""

from __future__ import annotations

import http.client
import itertools
import json
import math
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
        command = [sys.executable, "probe.py", f"http://{OUTSIDE}:{self.ports[0]}", "model-store"]
        return subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL).returncode

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
    entry = json.loads(containerfile.rpartition("ENTRYPOINT ")[2].partition("\n")[0])
    command = [*wrapper, str(project / ".venv/serve/bin" / Path(entry[0]).name), *entry[1:]]
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


def hostile(project: Path) -> Iterator[bytes]:
    """Requests made from the schema: a valid one with a value, key, header, method, path, length or byte changed."""
    chance = random.Random(1)
    golden = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
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
        math.nan,
        math.inf,
    ]
    path = f"/predictions/{NAME}"
    paths = [
        *(f"{path}/9.9", "/predictions", "/predictions/%00", "/predictions/../ping", f"/models/{NAME}/invoke", "/%zz"),
        *("//", f"/explanations/{NAME}", f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer", "/wfpredict/x", "*"),
        *(f"/{NAME}/predict", f"/invocations?model_name={NAME}&body=%ff", f"{path}?{'a=1&' * 400}", "/" + "a" * 5000),
        *("http://x/ping", "", "/\xff", "/a b", "/ping", "/metrics", "/?", f"{path}?body=%"),
    ]
    types = [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "text/plain",
    ]
    while True:
        row = dict(golden)
        if chance.random() < 0.5:
            row[chance.choice([*golden, "", "x", "\u2028"])] = chance.choice(values)
        body = json.dumps({"instances": [golden] * chance.randrange(3) + [row]}).encode()
        method, target, version, length, header = "POST", path, "1.1", f"Content-Length: {len(body)}", ""
        kind = chance.randrange(10)
        if kind < 2:
            body = damaged(chance, body)
            length = f"Content-Length: {len(body)}"
        elif kind == 2:
            header = f"Content-Type: {chance.choice([*types, '', '%'])}"
            body = chance.choice([body, b"a=%zz&=", b"--x\r\n\r\n", b""])
            length = f"Content-Length: {len(body)}"
        elif kind == 3:
            method = chance.choice(
                ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "CONNECT", "BREW", "", "\0"]
            )
            target = chance.choice(paths)
        elif kind == 4:
            header = f"X-{'y' * chance.randrange(1, 9000)}: {chr(255) * chance.randrange(200)}"
        elif kind == 5:
            given = [len(body) - 1, len(body) + 9, 10**8, -1, 10**30, "x", "", f"1{chr(13)}{chr(10)}Content-Length: 2"]
            length = f"Content-Length: {chance.choice(given)}"
        elif kind == 6:
            length = f"Transfer-Encoding: {chance.choice(['chunked', 'gzip, chunked', 'x'])}"
            if chance.random() < 0.5:
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif kind == 7:
            version = chance.choice(["1.0", "0.9", "2.0", "9", ""])
            header = chance.choice(
                ["Connection: close", "Expect: 100-continue", "Upgrade: h2c", "X-Request-Id: \xff", ":"]
            )
        lines = [f"{method} {target} HTTP/{version}", "Host: model", length, *([header] if header else []), "", ""]
        request = "\r\n".join(lines).encode("latin-1") + body
        yield damaged(chance, request) if kind == 8 else request


def damaged(chance: random.Random, text: bytes) -> bytes:
    """Cut a text somewhere, and put up to seven bytes in."""
    cut = bytearray(text[: chance.randrange(1, len(text) + 1)])
    for _ in range(chance.randrange(8)):
        cut.insert(chance.randrange(len(cut) + 1), chance.randrange(256))
    return bytes(cut)


def statuses(address: tuple[str, int], number: int, request: bytes) -> list[int]:
    """Send a request in one to four pieces and nothing more; return the statuses of the answers up to the end."""
    chance, received = random.Random(number), b""
    cuts = sorted(chance.randrange(len(request)) for _ in range(chance.randrange(4)))
    with socket.create_connection(address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
            connection.sendall(request[begin:end])
            time.sleep(chance.choice([0, 0, 0.002]))
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    return [int(status) for status in re.findall(rb"(?m)^HTTP/1.1 (\d{3}) ", received)]


def test_hostile_requests_get_2xx_or_4xx_and_harm_nothing(project: Path, server: Container) -> None:
    """Each of 10,000 is answered, whatever it is and in how many pieces it comes (a 100 goes before another answer)."""
    requests = list(itertools.islice(hostile(project), 10_000))
    address = (OUTSIDE, server.ports[0])
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: statuses(address, number, requests[number]), range(len(requests))))
    counted = Counter(status for answer in answers for status in answer)
    wrong = [
        (answer, request[:200])
        for answer, request in zip(answers, requests, strict=True)
        if not answer or answer[-1] == 100 or any(status // 100 not in (2, 4) for status in answer if status != 100)
    ]
    assert not wrong, (len(wrong), counted, *sorted({str(entry) for entry in wrong})[:20])
    assert counted.keys() >= {200, 400, 404, 405, 413, 414, 431}
    assert server.probe() == 0


@pytest.mark.parametrize("expects", [False, True])
def test_a_client_that_is_refused_reads_why(server: Container, expects: bool) -> None:
    """Also one that looks for the answer only after it has sent all of what nobody wants."""
    for _ in range(20):
        with socket.create_connection((OUTSIDE, server.ports[0]), timeout=20) as connection:
            head = f"POST /predictions/{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: {10 * 2**20}\r\n"
            connection.sendall((head + ("Expect: 100-continue\r\n" if expects else "") + "\r\n").encode())
            connection.sendall(b"x" * (10 * 2**20))
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert (response.status, response.getheader("Connection")) == (413, "close")
            assert "longer than" in json.loads(response.read())["error"]
    assert server.probe() == 0


def test_requests_in_a_row_are_answered_in_their_order(project: Path, server: Container) -> None:
    """A client may send the next request before it has the answer, and close its side before it has any."""
    golden = (project / "package/golden_request.json").read_bytes()
    ids = [f"request-{number}".encode() for number in range(20)]
    head = f"POST /predictions/{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(golden)}\r\nX-Request-Id: "
    with socket.create_connection((OUTSIDE, server.ports[0]), timeout=20) as connection:
        connection.sendall(b"".join(head.encode() + name + b"\r\n\r\n" + golden for name in ids))
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"X-Request-Id: (\S+)", received) == ids
    assert received.count(b"HTTP/1.1 200 ") == len(ids)


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
        container.wait(lambda: container.worker() == 0, 5)


def test_idle_connections_do_not_hold_a_stop_up(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        with socket.create_connection((OUTSIDE, container.ports[0])):
            container.process.terminate()
            assert container.process.wait(10) == 0
