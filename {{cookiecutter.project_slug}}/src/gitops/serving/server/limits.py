"""The bounds in haproxy.cfg and config.properties, which hold only together: start.py checks them first."""

from __future__ import annotations

import re
from pathlib import Path

#: Bytes that HAProxy's buffers take together, at most: the main container's memory has room for them.
MAX_BUFFERED = 100 * 10**6

#: Bytes of the bodies that TorchServe has at once, at most: it takes some ten times as much for them.
MAX_IN_FLIGHT = 35 * 10**6

#: Bytes of a buffer beside the body: 2,000 of the target and 4,000 of headers, twice, and what HAProxy keeps free
#: (tune.maxrewrite).
HEAD = 16384

#: Buffers that a full queue leaves for requests that arrive, and for answers.
FREE = 40

#: setting -> the line of haproxy.cfg that has it
SETTINGS = {
    "MAX_BODY": r"setenv\s+MAX_BODY",
    "tune.bufsize": r"tune\.bufsize",
    "tune.buffers.limit": r"tune\.buffers\.limit",
    "MAX_QUEUE": r"setenv\s+MAX_QUEUE",
    "maxconn of torchserve": r"server\s+torchserve\s+\"\$\{TORCHSERVE\}\"\s+maxconn",
}


def problem(settings: Path, values: dict[str, str]) -> str | None:
    """Return what is wrong with the bounds in haproxy.cfg, beside `settings`, and in its `values`, or None."""
    path = settings.with_name("haproxy.cfg")
    if not path.exists():
        return f"{path} is missing"
    text, found = path.read_text(encoding="utf-8"), {}
    for name, line in SETTINGS.items():
        given = re.findall(rf"(?m)^\s*{line}\s+(\d+)\s*$", text)
        if len(given) != 1:
            return f"{path}: {name} must be given once, as a number; it is given {len(given)} times"
        found[name] = int(given[0])
    body, buffer = found["MAX_BODY"], found["tune.bufsize"]
    if values.get("max_request_size") != str(body):
        wrong = values.get("max_request_size", "missing")
        return f"{settings}: max_request_size is {wrong}: {body} is expected, MAX_BODY in {path.name}"
    if body + HEAD > buffer:
        return f"{path}: tune.bufsize is {buffer}: MAX_BODY {body} needs {body + HEAD} at least"
    for name, size, limit in (
        ("tune.buffers.limit", buffer, MAX_BUFFERED),
        ("maxconn of torchserve", body, MAX_IN_FLIGHT),
    ):
        if not 1 <= found[name] <= limit // size:
            return (
                f"{path}: {name} is {found[name]}: 1 to {limit // size} of {size} bytes are {limit // 10**6} MB at most"
            )
    if found["MAX_QUEUE"] + FREE > found["tune.buffers.limit"]:
        most = found["tune.buffers.limit"] - FREE
        return f"{path}: MAX_QUEUE is {found['MAX_QUEUE']}: {most} at most, or it takes all of tune.buffers.limit"
    return None
