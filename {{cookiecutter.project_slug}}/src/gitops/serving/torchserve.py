"""TorchServe on this machine, with the image's settings, Java from the serve environment, and free ports.

HAProxy stands before it, as in a pod, where it is installed; else TorchServe answers clients itself, without the
limits of haproxy.cfg. Nothing is left behind: the server writes to a temporary directory, and its processes (HAProxy;
Java, Python worker) are process groups, which are killed as a whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

from gitops.core.artifacts import ProjectError
from gitops.core.code import SOURCE
from gitops.core.console import echo
from gitops.serving import reverse_proxy
from gitops.serving.server import probe

ENVIRONMENT = Path(".venv/serve/bin")
SETTINGS = Path("serving/config.properties")
LOGGING = SETTINGS.with_name("log4j2.xml")

#: Seconds until the server must have passed its smoke test. A slow machine that is busy with other work took fifty.
STARTUP_TIMEOUT = 120.0

#: Seconds for HAProxy to end after SIGUSR1, and for TorchServe after SIGTERM: longer than hard-stop-after, and than
#: start.py takes to flush the log and stop Java.
SHUTDOWN_TIMEOUT = 20.0

#: How variables begin that a shell may have set for other programs, and that TorchServe, Java or Python would obey.
FOREIGN = ("TS_", "PYTHON", "JAVA_", "_JAVA_", "JDK_JAVA_", "CLASSPATH")

#: Lines of the log that are shown if the server does not start.
LOG_LINES = 30


@dataclass(frozen=True)
class Server:
    """A running server: its address, TorchServe, the file with the output, and HAProxy if there is one.

    Both processes lead a process group.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    proxy: subprocess.Popen[bytes] | None = None

    def wait(self) -> None:
        """Return when the server has ended by itself. If this call is interrupted, stop the server gracefully: it
        answers requests in flight and flushes its request log.
        """
        try:
            while self.process.poll() is None and (self.proxy is None or self.proxy.poll() is None):
                time.sleep(0.2)
        except BaseException:
            for process, number in ((self.proxy, signal.SIGUSR1), (self.process, signal.SIGTERM)):
                if process is not None:
                    process.send_signal(number)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(SHUTDOWN_TIMEOUT)
            raise


@contextmanager
def running(mar: Path, sha256: str, model_name: str, port: int) -> Iterator[Server]:
    """Start TorchServe with the archive `mar` and yield it once it has passed its smoke test; leave no process.

    The server refuses a model with another sha256. A `port` that is 0 or in use is replaced by a free one. Raises
    ProjectError, with the end of the log, if the smoke test has not passed within STARTUP_TIMEOUT.
    """
    with tempfile.TemporaryDirectory(prefix="serve-") as name, ExitStack() as stack:
        folder = Path(name)
        haproxy = reverse_proxy.program()
        front, *ports = _free_ports(port)
        if port not in (0, front):
            echo(f"port {port} is in use: taking {front}")
        archive = folder / "store" / f"{model_name}.mar"
        archive.parent.mkdir()
        shutil.copyfile(mar, archive)
        if haproxy is None:
            echo("HAProxy is not installed: TorchServe answers without its limits")
            ports[0] = front
        (folder / SETTINGS.name).write_text(_settings(ports), encoding="utf-8")
        for path in (LOGGING, reverse_proxy.SETTINGS):
            shutil.copyfile(path, folder / path.name)
        server = Server(f"http://127.0.0.1:{ports[0]}", _start(folder, sha256), folder / "output.log")
        stack.callback(_stop, server.process)
        _wait(server, archive)
        if haproxy is not None:
            proxy = reverse_proxy.start(haproxy, folder, front, ports)
            stack.callback(_stop, proxy)
            server = replace(server, url=f"http://127.0.0.1:{front}", proxy=proxy)
            _wait(server, archive)
        yield server


def _free_ports(wanted: int) -> list[int]:
    """Return seven ports that are free now, the first being `wanted` if that is."""
    with ExitStack() as stack:
        ports = []
        for port in (wanted, *[0] * 6):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
        return ports


def _settings(ports: list[int]) -> str:
    """Return the image's settings with other addresses: of two lines with the same key TorchServe takes the last."""
    inference, management, metrics, grpc_inference, grpc_management, _ = ports
    return (
        f"{SETTINGS.read_text(encoding='utf-8')}\n"
        f"inference_address=http://127.0.0.1:{inference}\n"
        f"management_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\n"
        f"grpc_inference_port={grpc_inference}\n"
        f"grpc_management_port={grpc_management}\n"
    )


def _start(folder: Path, sha256: str) -> subprocess.Popen[bytes]:
    """Start TorchServe as the leader of a process group; it writes to `folder` alone."""
    python = ENVIRONMENT.absolute() / "python"
    if not python.exists():
        raise ProjectError(f"{ENVIRONMENT / 'python'} is missing: run `make setup` first")
    log = os.environ.get("REQUEST_LOG", "requests")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)} | {
        "MODEL_SHA256": sha256,
        "TEMP": str(folder),
        "TMPDIR": str(folder),
        "REQUEST_LOG": str(Path(log).absolute()) if log and "://" not in log else log,  # the server runs in `folder`
        "PYTHONPATH": str(SOURCE),  # for start.py; the model's worker does not get it
    }
    command = [str(python), "-m", "gitops.serving.server.start", SETTINGS.name, "store"]
    return reverse_proxy.background(command, folder, environment)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process group at once, if it still runs: Java would replace a worker that is killed alone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(server: Server, archive: Path) -> None:
    """Return once the smoke test passes. Raises ProjectError if it fails, or if the server does not start."""
    if server.proxy:
        print("starting HAProxy ", end="", flush=True)
    else:
        print("starting TorchServe ", end="", flush=True)
    begin = time.monotonic()
    problem = None
    while problem is None:
        try:
            problem = probe.probe(server.url, archive)
            if problem is None:
                echo(f" {time.monotonic() - begin:.1f} s")
                return
        except (OSError, HTTPException) as error:
            ended = any(each is not None and each.poll() is not None for each in (server.process, server.proxy))
            if ended or _gave_up(server):
                problem = "the server did not start"
            elif time.monotonic() - begin > STARTUP_TIMEOUT:
                problem = f"no answer after {STARTUP_TIMEOUT:.0f} s ({error})"
        print(".", end="", flush=True)
        time.sleep(0.1 if server.proxy else 0.5)
    print()
    raise ProjectError("\n".join([problem, "The end of its log:", *tail(server.log)]))


def _gave_up(server: Server) -> bool:
    """Tell whether TorchServe reports that it has no worker left: requests would then wait for ever."""
    try:
        return probe.request("GET", f"{server.url}/ping")[0] >= 400
    except (OSError, HTTPException):
        return False


def tail(log: Path) -> list[str]:
    """Return the last lines of the worker, or those of TorchServe if the worker has written none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    worker = [line.partition(" MODEL_LOG - ")[2] for line in lines if " MODEL_LOG - " in line]
    return (worker or lines)[-LOG_LINES:]
