"""Smoke test of a server: post the golden request of a model archive, and compare the answer with the golden one.

    python probe.py http://127.0.0.1:8080 ARCHIVE        (MODEL.mar, or the folder that holds no other archive)
    python probe.py http://127.0.0.1:8085                (only asks for /ping)

The exit status is 0 if the answer is right, else 1. Kubernetes runs it as startup and readiness probe, because
TorchServe's /ping says nothing about the model, and the second form as TorchServe's liveness probe; `make serve` runs
it to learn when the server is ready. It imports only the standard library, and little of it, because it runs every few
seconds.
"""

from __future__ import annotations

import http.client
import json
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Seconds without a byte from the server.
TIMEOUT = 5.0

#: Numbers may differ by this much, relative to the larger of 1 and the golden number: processors round differently.
TOLERANCE = 1e-4

#: The id by which the request log recognises a smoke test.
REQUEST_ID = "golden-request"


def differs(actual: Any, golden: Any) -> bool:
    """Tell whether two JSON values differ by more than rounding."""
    if isinstance(golden, float) and isinstance(actual, float | int):
        return not abs(actual - golden) <= TOLERANCE * max(1.0, abs(golden))
    if isinstance(golden, dict) and isinstance(actual, dict):
        return actual.keys() != golden.keys() or any(differs(actual[key], golden[key]) for key in golden)
    if isinstance(golden, list) and isinstance(actual, list):
        return len(actual) != len(golden) or any(map(differs, actual, golden))
    return bool(actual != golden)


def post(url: str, body: bytes) -> tuple[int, bytes]:
    """Post JSON and return status and body. Raises OSError or HTTPException if no answer comes in time."""
    return request("POST", url, body, {"Content-Type": "application/json", "X-Request-Id": REQUEST_ID})


def request(method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Send a request, past every proxy, and return status and body; raises as `post` does."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request(method, parts.path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def probe(server: str, archive: Path) -> str | None:
    """Return None if `server` passes the smoke test of `archive`, a file or its folder, else what it answers instead.

    Raises OSError or HTTPException if it does not answer, as while it starts.
    """
    if archive.is_dir():
        archives = list(archive.glob("*.mar"))
        if len(archives) != 1:
            return f"{archive} must hold one archive, and holds {len(archives)}"
        archive = archives[0]
    with zipfile.ZipFile(archive) as files:
        question, golden = files.read("golden_request.json"), files.read("golden_response.json")
    url = f"{server}/predictions/{archive.stem}"
    status, body = post(url, question)
    answer = _parse(body)
    if isinstance(answer, dict):
        answer.pop("request_id", None)  # each request has its own
    if status == 200 and not differs(answer, json.loads(golden)):
        return None
    text = ascii(body[:500].decode(errors="replace"))
    return f"the smoke test failed: {url} gave another answer than the golden one, with status {status}: {text}"


def ping(server: str) -> str | None:
    """Return None if `server` says that it works, else what it says instead. Raises as `probe` does."""
    status, body = request("GET", f"{server}/ping")
    return None if status == 200 else f"{server}/ping answered {status}: {body[:500].decode(errors='replace')!a}"


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


if __name__ == "__main__":
    try:
        problem = probe(sys.argv[1], Path(sys.argv[2])) if len(sys.argv) > 2 else ping(sys.argv[1])
    except (OSError, http.client.HTTPException) as error:
        problem = f"{sys.argv[1]} does not answer: {error}"
    except Exception as error:  # no archive, a broken one: what runs the probe shows one line
        problem = f"the smoke test cannot run: {type(error).__name__}: {error}"
    print(problem or "the smoke test passed")
    sys.exit(problem is not None)
