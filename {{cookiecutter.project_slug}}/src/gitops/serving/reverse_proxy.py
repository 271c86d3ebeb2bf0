"""HAProxy on this machine, before the TorchServe that torchserve.py runs, with the pod's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from gitops.core.code import SOURCE

SETTINGS = Path("serving/haproxy.cfg")

#: Where packages put HAProxy, which is not on everybody's PATH.
FOLDERS = "/usr/local/sbin:/usr/sbin:/opt/homebrew/sbin"


def program() -> str | None:
    """Return the path of HAProxy, or None where it is not installed."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:{FOLDERS}")


def start(haproxy: str, folder: Path, port: int, ports: list[int]) -> subprocess.Popen[bytes]:
    """Start HAProxy at 127.0.0.1:`port` as the leader of a process group; it writes to output.log in `folder`.

    `folder` has the settings and what TorchServe has written at its start; `ports` are TorchServe's of predictions,
    management and metrics, those of gRPC, and the one at which HAProxy shows metrics.
    """
    environment = {
        "PREDICTIONS": f"127.0.0.1:{port}",
        "METRICS": f"127.0.0.1:{ports[-1]}",
        "TORCHSERVE": f"127.0.0.1:{ports[0]}",
        "TORCHSERVE_METRICS": f"127.0.0.1:{ports[2]}",
        "DOCUMENTS": str(folder),
        "GRACE": "0",  # nothing balances load here that has to learn of the end first
        "SERVER_CODE": str(SOURCE / "gitops/serving/server"),
    }
    return background([haproxy, "-db", "-f", SETTINGS.name], folder, environment)


def background(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in `folder`, as the leader of a process group; its output goes to output.log there."""
    with (folder / "output.log").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
