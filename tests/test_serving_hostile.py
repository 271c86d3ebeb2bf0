"""Hostile clients of a trained project's server: each gets an answer, and none affects another."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import math
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import NAME, OUTSIDE, Container, started

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and 127.0.0.2")]


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with started(trained, tmp_path_factory.mktemp("server") / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        yield container


def test_management_is_closed_from_outside(server: Container) -> None:
    predictions, metrics, *inside = server.ports
    for port in (predictions, metrics):
        socket.create_connection((OUTSIDE, port), timeout=2).close()
    for port in inside:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((OUTSIDE, port), timeout=2)
    assert server.request("GET", "/models") in (404, 405)
    assert server.request("POST", "/models?url=file:///etc/passwd") in (404, 405)


def hostile(trained: Path) -> Iterator[bytes]:
    """Requests made from the schema: a valid one with a value, key, header, method, path, length or byte changed."""
    chance = random.Random(1)
    golden = json.loads((trained / "package/golden_request.json").read_text())["instances"][0]
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
            long = "y" * chance.randrange(1, 9000)
            header = chance.choice([f"X-{long}: {chr(255) * chance.randrange(200)}", f"X-Y: {long}"])
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
    """Send a request in one to four pieces and nothing more; return the statuses of the answers up to the end.

    Where the server does not want the rest, as of what is no HTTP, its answer has come before that.
    """
    chance, received = random.Random(number), b""
    cuts = sorted(chance.randrange(len(request)) for _ in range(chance.randrange(4)))
    with socket.create_connection(address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for begin, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
                connection.sendall(request[begin:end])
                time.sleep(chance.choice([0, 0, 0.002]))
            connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    return [int(status) for status in re.findall(rb"(?m)^HTTP/1.1 (\d{3}) ", received)]


def unfinished(request: bytes) -> bool:
    """Return whether the client closes its side before the request's end, by what its headers say."""
    head, ends, body = request.partition(b"\r\n\r\n")
    if not ends:
        return True
    lengths = re.findall(rb"(?i)\r\nContent-Length: *(\d+)(?=\r\n|$)", head)
    chunked = re.search(rb"(?i)\r\nTransfer-Encoding: *\S*chunked", head)
    return not body.endswith(b"0\r\n\r\n") if chunked else any(int(length) > len(body) for length in lengths)


def test_hostile_requests_get_2xx_or_4xx_and_harm_nothing(trained: Path, server: Container) -> None:
    """Each of 10,000 is answered, whatever it is and in how many pieces it comes (a 100 goes before another answer).

    But for a request that its client ends unfinished: the answer to it is optional, and HAProxy gives none (RFC 9112,
    8).
    """
    requests = list(itertools.islice(hostile(trained), 10_000))
    address = (OUTSIDE, server.ports[0])
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: statuses(address, number, requests[number]), range(len(requests))))
    counted = Counter(status for answer in answers for status in answer)
    wrong = [
        (answer, request[:200])
        for answer, request in zip(answers, requests, strict=True)
        if (not answer and not unfinished(request))
        or answer[-1:] == [100]
        or any(status // 100 not in (2, 4) for status in answer if status != 100)
    ]
    assert not wrong, (len(wrong), counted, *sorted({str(entry) for entry in wrong})[:20])
    assert counted.keys() >= {200, 400, 404, 405, 414, 431}
    assert server.probe() == 0


@pytest.mark.parametrize("expects", [False, True])
def test_refused_client_receives_the_reason(server: Container, expects: bool) -> None:
    """Even if it reads the answer only after it has sent all of a body that is too large."""
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


def test_requests_in_a_row_are_answered_in_their_order(trained: Path, server: Container) -> None:
    """A client may send the next request before it has the answer, as long as it keeps its side open."""
    golden = (trained / "package/golden_request.json").read_bytes()
    ids = [f"request-{number}".encode() for number in range(20)]
    head = f"POST /predictions/{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(golden)}\r\nX-Request-Id: "
    requests = [head.encode() + name + b"\r\n" + b"\r\n" + golden for name in ids]
    requests[-1] = requests[-1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with socket.create_connection((OUTSIDE, server.ports[0]), timeout=20) as connection:
        connection.sendall(b"".join(requests))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"(?i)X-Request-Id: (\S+)", received) == ids
    assert received.count(b"HTTP/1.1 200 ") == len(ids)
