"""Servers that the tests start on free ports: a trained project's as its image starts it, and any other command."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects import ROOT, module_of

_ports = module_of(ROOT, "tests/gitops/ports.py")

NAME = "breast_cancer"

#: Where the probe lies in the image's working directory.
PROBE = "gitops/serving/server/probe.py"

#: Stands for the pod's address: what listens on 127.0.0.1 alone is not reached through it.
OUTSIDE = "127.0.0.2"


@dataclass
class Container:
    """A started server: its folder, its process, and the ports of predictions, management and metrics."""

    folder: Path
    process: subprocess.Popen[bytes]
    ports: list[int]

    def probe(self) -> int:
        """Run what Kubernetes runs, and return its exit status."""
        command = [sys.executable, PROBE, f"http://{OUTSIDE}:{self.ports[0]}", "model-store"]
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
    containerfile = (project / "serving/Containerfile").read_text()
    lay_out(project, containerfile, folder)
    if archive:
        shutil.copy(archive, folder / f"model-store/{NAME}.mar")
    ports = free_ports(5)
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


def lay_out(project: Path, containerfile: str, folder: Path) -> None:
    """Copy into `folder`, for the image's working directory, what the last stage copies there from the project."""
    stage = containerfile.rpartition("\nFROM ")[2]
    for copied in re.findall(r"(?m)^COPY (?!--)(.+)", stage):
        *patterns, target = copied.split()
        for source in (path for pattern in patterns for path in project.glob(pattern)):
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")  # .dockerignore
                shutil.copytree(source, folder / target, ignore=ignored, dirs_exist_ok=True)
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / target)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens, and which no other test gets."""
    return list(_ports.free_ports(count))


def repacked(project: Path, target: Path, **changed: str) -> Path:
    """Write the project's archive to `target` with other texts in some files (NAME for NAME.py)."""
    with zipfile.ZipFile(project / f"package/{NAME}.mar") as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            content = changed.get(item.filename.removesuffix(".py"), "").encode() or old.read(item)
            new.writestr(item, content)
    return target


@contextmanager
def serving(port: int, *command: str | Path, cwd: Path | None = None) -> Iterator[None]:
    """Run a server until the block ends, which begins when the port answers."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(900):
            assert process.poll() is None, f"{command[0]} ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def post(url: str, question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return status and answer of a request in JSON."""
    request = urllib.request.Request(url, json.dumps(question).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
