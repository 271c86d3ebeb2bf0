"""What the request log costs: latencies of two running servers, one with the log and one without.

    .venv/dev/bin/python benchmarks/request_log.py PROJECT [ROUNDS]

PROJECT is a generated project after `make pipeline`. Requests go to the two in turns, round by round, so that other
load on the machine slows both: one row per request, one client that keeps its connection, then sixteen.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

#: Requests of each client in a round.
REQUESTS = 500


def main() -> None:
    """Print a line for each number of clients and each server, then how much was logged."""
    project, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 10
    row = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
    body = json.dumps({"instances": [row]}).encode()
    with ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory())
        servers = {name: start(project, log, stack) for name, log in (("without", ""), ("with", logs))}
        for url in servers.values():
            ask(url, body, 200)
        for clients in (1, 16):
            taken: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, url in servers.items():
                    with ThreadPoolExecutor(clients) as pool:
                        for times in pool.map(lambda _, url=url: ask(url, body, REQUESTS), range(clients)):
                            taken[name] += times
            for name, times in taken.items():
                p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
                print(f"{clients:2} clients, {name:7} the log: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        time.sleep(1)
        lines = sum(path.read_bytes().count(b"\n") for path in Path(logs).rglob("*.jsonl"))
        print(f"{lines} lines logged")


def start(project: Path, log: str, stack: ExitStack) -> str:
    """Serve the project's model until the stack ends, and return the address of its predictions."""
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"} | {"REQUEST_LOG": log}
    command = ["make", "serve", "ARGS=--port 0"]
    server = stack.enter_context(
        subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, process_group=0)
    )
    stack.callback(server.communicate)  # reads the rest of its output
    stack.callback(os.killpg, server.pid, 2)
    return next(found[1] for line in server.stdout or [] if (found := re.search(r"^curl \S+ (http://\S+)", line)))


def ask(url: str, body: bytes, times: int) -> list[float]:
    """Send a request so many times over one connection, and return the milliseconds of each answer."""
    parts, taken = urlsplit(url), []
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    for _ in range(times):
        sent = time.perf_counter()
        connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        taken.append((time.perf_counter() - sent) * 1000)
        if response.status != 200:
            raise SystemExit(f"{url} answers {response.status}")
    connection.close()
    return taken


if __name__ == "__main__":
    main()
