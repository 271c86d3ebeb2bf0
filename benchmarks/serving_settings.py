"""Where the time of a single client goes: TorchServe with one setting changed at a time.

    .venv/dev/bin/python benchmarks/serving_settings.py PROJECT        (a generated project after `make pipeline`)

Each variant is a server of its own, started as in the image but for HAProxy; all run beside each other. Prints the p50
latency of one client that asks each in turn, and the requests a second of 32 clients, one server after the other, as
the median of the rounds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import serving_load

ROUNDS = 3
SECONDS = 4.0


@dataclass(frozen=True)
class Variant:
    """Lines of config.properties, and values of model-config.yaml, that differ."""

    properties: dict[str, str] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)


VARIANTS = {
    "as it is": Variant(),
    "no batches (batchSize 1)": Variant(model={"batchSize": "1"}),
    "batches of 8": Variant(model={"batchSize": "8"}),
    "maxBatchDelay 2 ms": Variant(model={"maxBatchDelay": "2"}),
    "Java's optimising compiler too": Variant({"vmargs": ""}),
    "one Netty thread": Variant({"number_of_netty_threads": "1", "netty_client_threads": "1"}),
    "TCP to the worker": Variant({"use_native_io": "false"}),
    "two workers": Variant(model={"minWorkers": "2", "maxWorkers": "2"}),
}


def main() -> None:
    """Print the table."""
    project = Path(sys.argv[1]).resolve()
    (archive,) = (project / "package").glob("*.mar")
    row = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
    body, path = json.dumps({"instances": [row]}).encode(), f"/predictions/{archive.stem}"
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for name, variant in VARIANTS.items():
            ports[name] = stack.enter_context(started(project, archive, variant))
            serving_load.ready(ports[name], path, body)
        serving_load.compare(ports, path, body, SECONDS, ROUNDS)


@contextmanager
def started(project: Path, archive: Path, variant: Variant) -> Iterator[int]:
    """Start TorchServe with the settings of a variant; yield its port."""
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), serving_load.free_ports(5)
        (folder / "store").mkdir()
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(folder / f"store/{archive.name}", "w") as new:
            for item in old.infolist():
                new.writestr(item, changed(item.filename, old.read(item), variant.model))
        addresses = zip(("inference", "management", "metrics"), ports[:3], strict=True)
        own = {f"{kind}_address": f"http://127.0.0.1:{port}" for kind, port in addresses}
        own |= {"grpc_inference_port": str(ports[3]), "grpc_management_port": str(ports[4])} | variant.properties
        lines = [(project / "serving/config.properties").read_text(), *(f"{key}={value}" for key, value in own.items())]
        (folder / "config.properties").write_text("\n".join([*lines, ""]))
        for file in ("haproxy.cfg", "log4j2.xml"):
            shutil.copy(project / "serving" / file, folder)
        command = [
            project / ".venv/serve/bin/python",
            "-m",
            "gitops.serving.server.start",
            "config.properties",
            "store",
        ]
        places = {"PYTHONPATH": str(project / "src"), "TEMP": name, "TMPDIR": name}
        with subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | places,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            process_group=0,
        ) as process:
            try:
                yield ports[0]
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def changed(name: str, content: bytes, values: dict[str, str]) -> bytes:
    """Return a file of the archive, with other values if it is model-config.yaml."""
    text = content.decode() if name == "model-config.yaml" else None
    if text is None:
        return content
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key}: \S+", f"{key}: {value}", text)
        if count != 1:
            raise SystemExit(f"model-config.yaml has no {key}")
    return text.encode()


if __name__ == "__main__":
    main()
