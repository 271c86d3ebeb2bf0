"""Clients of a server on 127.0.0.1, for benchmarks: each keeps its connection and posts the same body."""

from __future__ import annotations

import http.client
import socket
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack

CLIENTS = 32
PROCESSES = 4

#: Requests of a connection that are not counted.
WARM_UP = 50


def wait(port: int, seconds: float = 120.0) -> None:
    """Return once something listens on the port. Raises SystemExit after so many seconds."""
    deadline = time.monotonic() + seconds
    while socket.socket().connect_ex(("127.0.0.1", port)):
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on port {port}")
        time.sleep(0.2)


def ready(port: int, path: str, body: bytes) -> None:
    """Return once the server answers a request with 200."""
    wait(port)
    deadline = time.monotonic() + 120
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        if connection.getresponse().status == 200:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"port {port} does not answer")
        time.sleep(0.5)


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in made]


def unfinished(path: str) -> bytes:
    """Return most of a request with a body that is as large as the server takes."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n"
    return head.encode() + b" " * 520_000


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
    """Post the body and read the answer. Raises SystemExit if its status is not 200."""
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise SystemExit(f"port {connection.port}: status {response.status}")


def compare(ports: dict[str, int], path: str, body: bytes, seconds: float, rounds: int) -> None:
    """Print a table of the servers at `ports`: one client's p50, and the median throughput of so many rounds."""
    first = in_turns(ports, path, body, seconds * len(ports))
    many: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            many[name].append(throughput(port, path, body, seconds))
    print(f"| server | p50, one client | requests a second, {CLIENTS} clients |\n|---|---|---|")
    for name in ports:
        print(f"| {name} | {first[name] * 1000:.2f} ms | {statistics.median(many[name]):,.0f} |")


def taken(port: int, path: str, body: bytes, seconds: float) -> list[float]:
    """Return the latencies in seconds of one client's requests within `seconds`, without the first ones."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        ask(connection, path, body)
        found.append(time.perf_counter() - begin)
    connection.close()
    return found[WARM_UP:]


def in_turns(ports: dict[str, int], path: str, body: bytes, seconds: float) -> dict[str, float]:
    """Return the median latency in seconds of one client that asks each server in turn: noise is the same for all."""
    connections = {name: http.client.HTTPConnection("127.0.0.1", port, timeout=30) for name, port in ports.items()}
    found: dict[str, list[float]] = {name: [] for name in ports}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, connection in connections.items():
            begin = time.perf_counter()
            ask(connection, path, body)
            found[name].append(time.perf_counter() - begin)
    return {name: statistics.median(latencies[WARM_UP:]) for name, latencies in found.items()}


def percentile(port: int, path: str, body: bytes, seconds: float) -> float:
    """Return the p99 of the latencies of eight clients, in seconds."""
    with ThreadPoolExecutor(8) as pool:
        each = pool.map(lambda _: taken(port, path, body, seconds), range(8))
        found = sorted(latency for latencies in each for latency in latencies)
    return found[int(len(found) * 0.99)]


def throughput(port: int, path: str, body: bytes, seconds: float) -> float:
    """Return the requests per second of CLIENTS clients in PROCESSES processes."""
    each = CLIENTS // PROCESSES
    arguments = [[value] * PROCESSES for value in (port, path, body, each, seconds)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        return sum(pool.map(clients, *arguments))


def clients(port: int, path: str, body: bytes, number: int, seconds: float) -> float:
    """Keep `number` connections, each with one request in flight, and return the answers per second."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(number)]
    for connection in connections:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
    answers, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        for connection in connections:
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"port {port}: status {response.status}")
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answers += 1
    elapsed = time.perf_counter() - begin
    for connection in connections:
        connection.close()
    return answers / elapsed
