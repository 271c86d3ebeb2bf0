"""What the reverse proxy before TorchServe costs: latency for one client, and requests per second for 32.

    .venv/dev/bin/python benchmarks/serving.py PROJECT        (a generated project after `make pipeline`)

The server is started by `make serve`. Requests go through its proxy and directly to TorchServe's own port, in turns.
Clients keep their connections and send one row. They share the machine with the server.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

ROUNDS = 3
SECONDS = 5.0
CLIENTS = 32
PROCESSES = 4


def main() -> None:
    """Print a table, the median of the rounds."""
    project = Path(sys.argv[1]).resolve()
    command = ["make", "serve", "ARGS=--port 0"]
    server = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        url = next(found[1] for line in server.stdout or [] if (found := re.search(r"^curl \S+ (http://\S+)", line)))
        row = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
        body = json.dumps({"instances": [row]}).encode()
        parts = urlsplit(url)
        ports = {"through the proxy": parts.port or 0, "TorchServe alone": upstream_port(parts.port or 0)}
        alone: dict[str, list[float]] = {name: [] for name in ports}
        many: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(ROUNDS):
            for name, port in ports.items():
                alone[name].append(statistics.median(taken(port, parts.path, body, SECONDS)) * 1000)
                many[name].append(throughput(port, parts.path, body))
        for name in ports:
            milliseconds, rate = statistics.median(alone[name]), statistics.median(many[name])
            print(f"{name:18} p50 {milliseconds:.2f} ms for one client, {rate:.0f} requests/s for {CLIENTS}")
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def upstream_port(proxy_port: int) -> int:
    """Return the port of 127.0.0.1 at which TorchServe listens, from the settings that start.py wrote for it."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            settings = Path(command[command.index("-f") + 1]).read_text() if "-f" in command else ""
        except (OSError, ValueError, UnicodeDecodeError):
            continue
        found = re.findall(r"(?m)^inference_address=http://127.0.0.1:(\d+)$", settings)
        if str(proxy_port) in found[:-1]:
            return int(found[-1])
    raise SystemExit(f"no TorchServe found behind port {proxy_port}")


def taken(port: int, path: str, body: bytes, seconds: float) -> list[float]:
    """Return the latencies in seconds of one client's requests within `seconds`, without the first fifty."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise SystemExit(f"status {response.status}")
        found.append(time.perf_counter() - begin)
    connection.close()
    return found[50:]


def throughput(port: int, path: str, body: bytes) -> float:
    """Return the requests per second of CLIENTS clients in PROCESSES processes."""
    each = CLIENTS // PROCESSES
    with ProcessPoolExecutor(PROCESSES) as pool:
        return sum(pool.map(clients, [port] * PROCESSES, [path] * PROCESSES, [body] * PROCESSES, [each] * PROCESSES))


def clients(port: int, path: str, body: bytes, number: int) -> float:
    """Keep `number` connections, each with one request in flight, and return the answers per second."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(number)]
    for connection in connections:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
    answers, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + SECONDS:
        for connection in connections:
            connection.getresponse().read()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answers += 1
    elapsed = time.perf_counter() - begin
    for connection in connections:
        connection.close()
    return answers / elapsed


if __name__ == "__main__":
    main()
