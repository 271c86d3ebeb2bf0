"""What clients can take of a trained project's server is bounded: honest ones are served beside greedy ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from servers import NAME, OUTSIDE, Container, started

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and 127.0.0.2")]

PATH = f"/predictions/{NAME}"

MB = 10**6


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with started(trained, tmp_path_factory.mktemp("server") / "home") as container:
        container.wait(lambda: container.probe() == 0, 120)
        yield container


@pytest.fixture(scope="module")
def golden(trained: Path) -> bytes:
    row = json.loads((trained / "package/golden_request.json").read_text())["instances"][0]
    return json.dumps({"instances": [row]}).encode()


def memory(process: int) -> int:
    """Return the bytes of memory that a process, dumb-init, and its children hold."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    text = Path(f"/proc/{process}/status").read_text()
    own = int(text.partition("VmRSS:")[2].split()[0]) * 1024
    return own + sum(memory(int(child)) for child in children)


def both(server: Container) -> list[int]:
    assert server.proxy is not None
    return [memory(server.proxy.pid), memory(server.process.pid)]


@contextmanager
def connections(server: Container, number: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Yield that many open connections, on each of which these bytes were sent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            opened = []
            for _ in range(number):
                connection = stack.enter_context(socket.create_connection((OUTSIDE, server.ports[0]), timeout=20))
                with contextlib.suppress(OSError):  # refused before all was read
                    connection.sendall(sent)
                opened.append(connection)
            yield opened
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def honest(server: Container, golden: bytes, number: int = 30) -> list[int]:
    """Return the statuses of a client's requests, each on a connection of its own; a cut one is sent once more."""

    def ask() -> int:
        try:
            return server.request("POST", PATH, golden)
        except ConnectionError:  # waited for a buffer for too long, on a machine that is busy
            return server.request("POST", PATH, golden)

    return [ask() for _ in range(number)]


def test_slow_headers_and_silent_clients_are_cut_off(server: Container, golden: bytes) -> None:
    """Slowloris: a byte of a header now and then keeps no connection, nor does none; others are served meanwhile."""
    with (
        connections(server, 240, b"") as silent,
        connections(server, 120, b"POST / HTTP/1.1\r\nHost: x\r\nX-A: ") as slow,
    ):
        for _ in range(7):
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b"a")
            begin = time.monotonic()
            assert honest(server, golden, 1) == [200]
            assert time.monotonic() - begin < 3
            time.sleep(1)
        for connection in [*silent, *slow]:
            connection.settimeout(3)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass


def test_ten_thousand_idle_connections_take_little_memory(server: Container, golden: bytes) -> None:
    before = both(server)
    with connections(server, min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000), b""):
        assert honest(server, golden) == [200] * 30
        grown = [now - then for now, then in zip(both(server), before, strict=True)]
    assert grown[0] < 100 * MB and grown[1] < 100 * MB, grown


def uploads(length: int) -> bytes:
    """Return most of a request with a body of that length."""
    return f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + b" " * 400_000


@pytest.mark.parametrize("length", [8 * 2**20, 500_000], ids=["too large", "allowed"])
def test_uploads_that_never_end_take_bounded_memory(server: Container, golden: bytes, length: int) -> None:
    before = both(server)
    with connections(server, 150, uploads(length)):
        assert honest(server, golden) == [200] * 30
        grown = [now - then for now, then in zip(both(server), before, strict=True)]
    assert grown[0] < 100 * MB and grown[1] < 100 * MB, grown


def test_more_uploads_than_buffers_wait_in_line(server: Container, golden: bytes) -> None:
    """They take no more memory. Honest clients wait, or are cut off too, until those before them are."""
    before = both(server)

    def served() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return server.request("POST", PATH, golden) == 200
        return False

    with connections(server, 400, uploads(500_000)):
        server.wait(served, 60)
        grown = [now - then for now, then in zip(both(server), before, strict=True)]
    assert grown[0] < 120 * MB and grown[1] < 100 * MB, grown


def test_a_body_in_chunks_is_taken_up_to_the_limit(server: Container, golden: bytes) -> None:
    def post(body: bytes) -> int:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:1000], body[1000:]) if part)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        with socket.create_connection((OUTSIDE, server.ports[0]), timeout=20) as connection:
            connection.sendall(head + chunks + b"0\r\n\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
            response.read()
            return response.status

    assert post(golden) == 200
    assert post(golden + b" " * (2**19 - len(golden))) == 200
    assert post(golden + b" " * (2**19 - len(golden) + 1)) == 413
    assert post(golden + b" " * 2**21) == 413


def test_a_full_queue_is_told_at_once_and_when_to_come_again(server: Container, golden: bytes) -> None:
    """While the worker stands still, TorchServe has 64 requests and HAProxy 128, which are answered later."""
    worker, answers = server.worker(), list[tuple[int, str | None]]()

    def ask() -> None:
        connection = http.client.HTTPConnection(OUTSIDE, server.ports[0], timeout=30)
        connection.request("POST", PATH, golden, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answers.append((response.status, response.getheader("Retry-After")))
        response.read()
        connection.close()

    os.kill(worker, signal.SIGSTOP)
    try:
        threads = [threading.Thread(target=ask) for _ in range(64 + 128 + 40)]
        for thread in threads:
            thread.start()
        server.wait(lambda: len(answers) >= 40, 9)
        refused = list(answers)
        status, text = server.answer("GET", "/metrics/proxy", port=server.ports[1])
        queued = [line for line in text.decode().splitlines() if line.startswith("haproxy_backend_current_queue{")]
    finally:
        os.kill(worker, signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert refused == [(503, "1")] * 40
    assert status == 200 and any(float(line.split()[-1]) == 128 for line in queued)
    assert sorted(answers) == [(200, None)] * (64 + 128) + [(503, "1")] * 40


def test_a_client_has_a_rate_if_one_is_set(trained: Path, tmp_path: Path, golden: bytes) -> None:
    with started(trained, tmp_path / "home") as container:
        settings = tmp_path / "home/haproxy.cfg"
        text = settings.read_text()
        settings.write_text(text.replace("setenv MAX_RATE 1000000", "setenv MAX_RATE 20"))
        container.wait(lambda: container.probe() == 0, 120)
        ids = [{"X-Client-Id": name} for name in ("greedy", "modest")]
        assert [container.request("POST", PATH, golden, ids[0]) for _ in range(25)] == [200] * 20 + [429] * 5
        assert container.request("POST", PATH, golden, ids[1]) == 200


def test_what_is_set_is_bounded_too(trained: Path, tmp_path: Path) -> None:
    """TorchServe does not start with limits that together are more than the pod has."""
    with started(trained, tmp_path / "home") as container:
        pass
    settings = tmp_path / "home/haproxy.cfg"
    text = settings.read_text()
    for before, after, said in (
        ("tune.buffers.limit 170", "tune.buffers.limit 1700", "tune.buffers.limit is 1700: 1 to 179 of 557056 bytes"),
        ("tune.bufsize 557056", "tune.bufsize 524288", "tune.bufsize is 524288: MAX_BODY 524288 needs 540672"),
        ("maxconn 64\n\n# For", "maxconn 640\n\n# For", "maxconn of torchserve is 640: 1 to 66 of 524288 bytes"),
        ("setenv MAX_QUEUE 128", "setenv MAX_QUEUE 170", "MAX_QUEUE is 170: 130 at most"),
        ("setenv MAX_BODY 524288", "setenv MAX_BODY 1048576", "max_request_size is 524288: 1048576 is expected"),
    ):
        assert before in text
        settings.write_text(text.replace(before, after))
        status, output = container.start_again()
        assert status == 1 and said in output
