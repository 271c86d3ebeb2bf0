"""The server under load: HAProxy before TorchServe, TorchServe alone, FastAPI and LitServe; and what clients can take.

    .venv/dev/bin/python benchmarks/serving.py PROJECT        (a generated project after `make pipeline`; needs haproxy)

Prints the p50 latency of one client and the requests a second of 32, request by request and round by round in turns,
as medians; the memory of both processes; and what 1,000 idle and 150 unfinished connections add to it, and to the p99
of eight honest clients. Clients keep their connections, send one row, and share the machine with the server. FastAPI
and LitServe run the handler's own checks and model (serving_peers.py); they are installed into PROJECT/build/peers.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import serving_load

ROUNDS = 5
SECONDS = 5.0
PEERS = ("fastapi", "litserve")


def main() -> None:
    """Print the tables."""
    project = Path(sys.argv[1]).resolve()
    row = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
    body = json.dumps({"instances": [row]}).encode()
    with ExitStack() as stack:
        server, url = stack.enter_context(served(project))
        path, front = urlsplit(url).path, urlsplit(url).port or 0
        haproxy, java, alone = processes(server)
        ports = {"HAProxy, TorchServe": front, "TorchServe alone": alone}
        print(f"idle: HAProxy {megabytes(haproxy):.0f} MB, TorchServe and its worker {megabytes(java):.0f} MB")
        clients_that_take_much(front, path, body, haproxy, java)
        for name in PEERS:
            ports[name] = stack.enter_context(peer(project, name))
        serving_load.compare(ports, path, body, SECONDS, ROUNDS)


def clients_that_take_much(port: int, path: str, body: bytes, haproxy: list[int], java: list[int]) -> None:
    """Print what 1,000 idle and 150 unfinished connections cost."""
    calm = serving_load.percentile(port, path, body, SECONDS)
    before = megabytes(haproxy), megabytes(java)
    with connections(port, 1000, b""), connections(port, 150, serving_load.unfinished(path)):
        busy = serving_load.percentile(port, path, body, SECONDS)
        after = megabytes(haproxy), megabytes(java)
    grown = [now - then for now, then in zip(after, before, strict=True)]
    print(
        f"1,000 idle, 150 unfinished connections: HAProxy {grown[0]:+.0f} MB, TorchServe {grown[1]:+.0f} MB; ", end=""
    )
    print(f"p99 of eight clients {busy * 1000:.1f} ms, {calm * 1000:.1f} ms without")


@contextmanager
def served(project: Path) -> Iterator[tuple[int, str]]:
    """Run `make serve`; yield its process group and the address of predictions."""
    command = ["make", "serve", "ARGS=--port 0"]
    server = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        yield (
            server.pid,
            next(f[1] for line in server.stdout or [] if (f := re.search(r"^curl \S+ (http://\S+)", line))),
        )
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def processes(group: int) -> tuple[list[int], list[int], int]:
    """Return HAProxy's processes, TorchServe's, and TorchServe's port, of the server that leads a process group."""
    found: dict[int, tuple[int, list[str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = parent, (folder / "cmdline").read_bytes().decode().split("\0")
        except (OSError, ValueError):
            continue

    def below(process: int) -> list[int]:
        return [process, *(each for child, (parent, _) in found.items() if parent == process for each in below(child))]

    mine = below(group)
    (haproxy,) = [each for each in mine if found[each][1][0].endswith("haproxy")]
    (start,) = [each for each in mine if "gitops.serving.server.start" in found[each][1]]
    settings = (Path(f"/proc/{start}/cwd") / "config.properties").read_text()
    port = re.findall(r"(?m)^inference_address=http://127.0.0.1:(\d+)$", settings)[-1]
    return [haproxy], below(start), int(port)


def megabytes(of: list[int]) -> float:
    """Return the memory that these processes hold, in MB: their own and their share of what several map."""
    rollups = [Path(f"/proc/{each}/smaps_rollup") for each in of if Path(f"/proc/{each}").exists()]
    return sum(int(path.read_text().partition("Pss:")[2].split()[0]) for path in rollups) * 1024 / 1e6


@contextmanager
def connections(port: int, number: int, sent: bytes) -> Iterator[None]:
    """Hold that many connections on which these bytes were sent, and nothing more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)).sendall(sent)
        yield


@contextmanager
def peer(project: Path, name: str) -> Iterator[int]:
    """Run FastAPI or LitServe with the project's archive; yield its port."""
    packages, python = project / "build/peers", project / ".venv/serve/bin/python"
    if not (packages / name).exists():
        uv = project / ".venv/uv/bin/uv"
        wanted = ["fastapi", "uvicorn[standard]", "litserve"]
        install = [uv, "pip", "install", "--quiet", "--python", python, "--target", packages, *wanted]
        subprocess.run(install, check=True)
    (archive,) = (project / "package").glob("*.mar")
    with tempfile.TemporaryDirectory() as folder:
        [port] = serving_load.free_ports(1)
        unpacked = Path(folder) / archive.stem
        zipfile.ZipFile(archive).extractall(unpacked)
        command = [python, Path(__file__).with_name("serving_peers.py"), name, unpacked, str(port)]
        environment = os.environ | {"PYTHONPATH": str(packages)}
        with subprocess.Popen(command, env=environment, process_group=0) as process:
            try:
                serving_load.wait(port)
                yield port
            finally:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
