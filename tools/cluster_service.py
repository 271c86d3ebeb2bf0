"""What the model server in the cluster of `make end-to-end` answers, through a forwarded port of its Service."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cluster
import demo

PAUSE = 2.0  # seconds between two questions


def wait_for_answer(namespace: str, model: str, version: str, deadline: float) -> None:
    """Ask until model `version` answers: a pod of the release before may still be on its way out.

    Raises SystemExit where another or none does at `deadline`, of time.monotonic().
    """
    while True:
        try:
            answer = ask(namespace, model)
            print(json.dumps(answer), flush=True)
            if answer["model_version"] == version:
                return
            problem = f"model {answer['model_version']} answers"
        except OSError as error:
            problem = f"the Service does not answer ({error})"
        if time.monotonic() > deadline:
            raise SystemExit(f"{problem}; the manifest names {version}")
        time.sleep(PAUSE)


def still_answers(namespace: str, model: str, version: str) -> None:
    """Ask once. Raises SystemExit unless model `version` answers."""
    try:
        answered = ask(namespace, model)["model_version"]
    except OSError as error:
        raise SystemExit(f"model {version} of {namespace} does not answer any more: {error}") from error
    if answered != version:
        raise SystemExit(f"model {answered} of {namespace} answers instead of {version}")


def ask(namespace: str, model: str) -> Any:
    """Return the Service's answer to the golden request's first row. Raises OSError."""
    rows = json.loads((demo.PROJECT / "package/golden_request.json").read_text(encoding="utf-8"))["instances"]
    body = json.dumps({"instances": rows[:1]}).encode()
    with forwarded(namespace) as address:
        request = urllib.request.Request(f"{address}/predictions/{model}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


@contextmanager
def forwarded(namespace: str) -> Iterator[str]:
    """Forward a free port of this machine to the Service and yield its address. Raises OSError."""
    command = ["kubectl", "--namespace", namespace, "port-forward", f"service/{cluster.NAME}", ":80"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=demo.ENVIRONMENT, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("Forwarding from 127.0.0.1:"):
            raise ConnectionError(f"kubectl port-forward says {line!r}")
        yield f"http://127.0.0.1:{line.split(':')[1].split()[0]}"
    finally:
        process.terminate()
        process.communicate()
