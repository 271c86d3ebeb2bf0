"""`make serve`: run the model with TorchServe on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitops.core import params
from gitops.core.artifacts import MODEL, PACKAGE, ProjectError, digest, run
from gitops.core.console import echo
from gitops.integrations import kustomize
from gitops.releases import release
from gitops.serving import torchserve
from gitops.serving.server import probe


def main() -> None:
    """Serve the archive of the last `make pipeline`, or the released one."""
    options = _options()
    archive, sha256, name = _released(options.environment) if options.environment else _built()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes what it starts with `&` ignore SIGINT
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))  # an exception, so that the server is stopped
    try:
        with torchserve.running(archive, sha256, name, options.port) as server:
            url = f"{server.url}/predictions/{name}"
            request = _golden_request(archive)
            if options.once:
                echo(_post(url, request))
                return
            echo(f"\n{name} {sha256[:12]} is ready; its log is {server.log}. Try it:\n")
            echo(_curl(url, {"instances": request["instances"][:1]}))
            echo("\nCtrl-C stops it.")
            server.wait()
            raise ProjectError("\n".join(["TorchServe has stopped. The end of its log:", *torchserve.tail(server.log)]))
    except KeyboardInterrupt:
        echo("\nstopped")


@contextmanager
def serving(mar: Path, sha256: str, model_name: str, port: int = 0) -> Iterator[str]:
    """Serve the archive `mar` and yield the server's address, http://127.0.0.1:<port>, as torchserve.running does."""
    with torchserve.running(mar, sha256, model_name, port) as server:
        yield server.url


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="serve", description="Serve the model with TorchServe on this machine.")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080; for 0 or a port in use, a free one")
    kustomize.add_environment_option(parser, None, "serve the release of this environment, not the workspace")
    parser.add_argument("--once", action="store_true", help="print the answer to the golden request, then stop")
    return parser.parse_args()


def _built() -> tuple[Path, str, str]:
    """Return the workspace's archive, the sha256 of the workspace's model, and its name."""
    name = params.load().package.model_name
    archive = PACKAGE / f"{name}.mar"
    for path in (archive, MODEL):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
    return archive, digest(MODEL), name


def _released(environment: str) -> tuple[Path, str, str]:
    """Return the same for the environment's current release; the archive comes from DVC's cache or remote."""
    from gitops.integrations import dvc

    present = release.present(environment)
    if present is None:
        raise ProjectError(
            f"nothing is released to {environment} yet: merge a change to main, or serve without --environment"
        )
    record = present.record
    return dvc.fetch(record.package.md5), record.model.sha256, record.model.name


def _golden_request(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as files:
        request: dict[str, Any] = json.loads(files.read("golden_request.json"))
        return request


def _post(url: str, request: dict[str, Any]) -> str:
    _, answer = probe.post(url, json.dumps(request).encode())
    return str(answer.decode())


def _curl(url: str, request: dict[str, Any]) -> str:
    return f"curl -s {url} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"


if __name__ == "__main__":
    run(main)
