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
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import ROOT, module_of

_ports = module_of(ROOT, "tests/gitops/ports.py")

NAME = "breast_cancer"

#: Where the probe lies in the image's working directory.
PROBE = "gitops/serving/server/probe.py"

#: Where Debian puts HAProxy, too.
PATH = f"{os.environ['PATH']}:/usr/sbin"

#: Stands for the pod's address: what listens on 127.0.0.1 alone is not reached through it.
OUTSIDE = "127.0.0.2"


class Container:
    """A pod of the server: TorchServe as the sidecar, and HAProxy once that has started, as the kubelet starts them.

    `ports` are those of predictions and metrics outside, then TorchServe's: predictions, management, metrics, gRPC.
    """

    def __init__(self, folder: Path, pod: dict[str, Any], command: list[str], environment: dict[str, str]) -> None:
        self.folder, self.wrapper, self.environment = folder, command[: command.index("dumb-init")], environment
        self.server, self.proxy_container = pod["initContainers"][0], pod["containers"][0]
        self.ports = free_ports(7)
        self.environment |= {
            "PREDICTIONS": f"{OUTSIDE}:{self.ports[0]}",
            "METRICS": f"{OUTSIDE}:{self.ports[1]}",
            "TORCHSERVE": f"127.0.0.1:{self.ports[2]}",
            "TORCHSERVE_METRICS": f"127.0.0.1:{self.ports[4]}",
            "DOCUMENTS": str(folder / "tmp"),
        }
        settings = (folder / "config.properties").read_text()
        for number, port in zip((8085, 8081, 8084), self.ports[2:], strict=False):
            settings = settings.replace(f":{number}\n", f":{port}\n")
        grpc = f"\ngrpc_inference_port={self.ports[5]}\ngrpc_management_port={self.ports[6]}\n"
        (folder / "config.properties").write_text(settings + grpc)
        self.proxy: subprocess.Popen[bytes] | None = None
        self.process = self._run(command)
        self.command = command

    def start_again(self) -> tuple[int, str]:
        """Run TorchServe's entry point where it is expected to end by itself; return its exit status and output."""
        done = subprocess.run(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, process_group=0
            )

    def _asked(self, container: dict[str, Any], probe: str) -> int:
        """Run a probe of the pod at this server's addresses, and return its exit status."""
        _, *command = container[probe]["exec"]["command"]
        places = {"127.0.0.1:8080": f"{OUTSIDE}:{self.ports[0]}", "127.0.0.1:8085": f"127.0.0.1:{self.ports[2]}"}
        for before, after in places.items():
            command = [each.replace(before, after) for each in command]
        return subprocess.run([sys.executable, *command], cwd=self.folder, stdout=subprocess.DEVNULL).returncode

    def probe(self) -> int:
        """Run what Kubernetes runs, start HAProxy where it would, and return the exit status."""
        if self.proxy is None:
            if status := self._asked(self.server, "startupProbe"):
                return status
            self.proxy = self._run([*self.wrapper, *self.proxy_container["command"]])
            self.wait(lambda: not socket.socket().connect_ex((OUTSIDE, self.ports[0])), 10)
        return self._asked(self.proxy_container, "readinessProbe")

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        return self.answer(method, path, body, headers)[0]

    def answer(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, port: int = 0
    ) -> tuple[int, bytes]:
        """Return status and body of the answer to a request, to HAProxy's port for predictions or another one."""
        connection = http.client.HTTPConnection(OUTSIDE, port or self.ports[0], timeout=20)
        try:
            connection.request(method, path, body, headers or {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def alive(self) -> bool:
        """Return what TorchServe's liveness probe says."""
        return self._asked(self.server, "livenessProbe") == 0

    def stop(self, seconds: float = 10) -> list[int]:
        """End the pod as the kubelet does, the sidecar last; return the exit statuses, HAProxy's first."""
        processes = [each for each in (self.proxy, self.process) if each is not None]
        for process in processes:
            process.terminate()
            process.wait(seconds)
        return [process.returncode for process in processes]

    def kill(self) -> None:
        for process in (self.proxy, self.process):
            if process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

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
    """Lay the image's files out in `folder`, run its entry point and, later, HAProxy, and leave no process."""
    if missing := [name for name in ("haproxy", "dumb-init") if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"needs {' and '.join(missing)}: `make packages` installs them")
    containerfile = (project / "serving/Containerfile").read_text()
    lay_out(project, containerfile, folder)
    if archive:
        shutil.copy(archive, folder / f"model-store/{NAME}.mar")
    for declared in ("tmp", "logs"):
        (folder / declared).mkdir()
    pod = yaml.safe_load((project / "k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    entry = json.loads(containerfile.rpartition("ENTRYPOINT ")[2].partition("\n")[0])
    ours = {"TEMP": "tmp", "TMPDIR": "tmp", "LOG_LOCATION": "logs", "METRICS_LOCATION": "logs"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TS_", "PYTHON"))}
    places = {key: str(folder / value) for key, value in ours.items()}
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder), "PATH": f"{project / '.venv/serve/bin'}:{PATH}"}
    container = Container(folder, pod, [*wrapper, *entry], inherited | places | fixed | environment)
    try:
        yield container
    finally:
        container.kill()


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
