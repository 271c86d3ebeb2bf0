"""The request log: what was asked and answered, as JSON lines in files that are rotated (docs/system-design.md).

It is packed into the model archive beside the handler, and the request only leaves a reference here: a thread turns it
into text and writes it to the folder, or the fsspec address, that REQUEST_LOG names. What the thread cannot keep up
with, or cannot write, is dropped and counted. Only an address with :// asks for fsspec, which torch brings along.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gitops.serving.server import request_log_files

#: The id of the probes' request, which is not logged (probe.py).
GOLDEN = "golden-request"

#: The id by which start.py, before it ends the server, asks for what waits to be written. No client can send it:
#: the door lets no such id in.
END = "/end"

#: Bytes of request bodies that may wait for the thread: three seconds of a full worker's small requests. As Python
#: objects they take some six times that, which a pod's memory has room for.
WAITING = 16 * 2**20

#: Seconds between two looks at what waits. Requests do not wake the thread: it would take the processor from them.
PAUSE = 0.2

#: Seconds that the end of the process waits for what is left to be written.
FAREWELL = 4.0

#: Seconds between two lines about failures in the server's own log.
SILENCE = 60.0

#: Bytes of lines that are written at once, at most.
SLICE = 2**20

#: What an entry weighs beside its body: the objects, the answer.
WEIGHT = 1024

SANE = re.compile(r"[A-Za-z0-9_.-]{1,64}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A request and its answer: `rows` with their `predictions`, or a `status` other than 200 with its `problems`."""

    request_id: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[Any] = field(default_factory=list)
    status: int = 200
    problems: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    time: float = field(default_factory=time.time)


def request_id(context: Any, index: int) -> str:
    """Return the id of a batch's request: the client's X-Request-Id, if it is sane, else TorchServe's own."""
    for name, value in context.get_all_request_header(index).items():
        if name.lower() == "x-request-id" and isinstance(value, str) and (value == END or SANE.fullmatch(value)):
            return value
    return str(context.get_request_id(index))


def sampled(request_id: str, share: float) -> bool:
    """Tell whether a request of this id is among the `share` that is logged: the same for each server and each try."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def lines(entry: Entry, version: str, mask: list[str]) -> Iterator[bytes]:
    """Yield an entry's lines: one an instance, or one for a request that got no prediction."""
    moment = datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    about = {"time": moment, "request_id": entry.request_id}
    if entry.status != 200:
        errors = [_hidden(problem, mask) for problem in entry.problems]
        yield _line(about | {"model_version": version, "status": entry.status, "errors": errors})
        return
    hidden = dict.fromkeys(mask, "masked")
    for index, (row, prediction) in enumerate(zip(entry.rows, entry.predictions, strict=True)):
        known = {"instance": index, "model_version": version, "inputs": row | hidden, "prediction": prediction}
        yield _line(about | known)


def _hidden(problem: dict[str, Any], mask: list[str]) -> dict[str, Any]:
    """Return an error whose text does not show a masked value: it quotes the value, or a row that is no object."""
    about_row = problem["instance"] is not None and problem["column"] is None
    return problem | {"error": "masked"} if problem["column"] in mask or (mask and about_row) else problem


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii") + b"\n"


class RequestLog:
    """The log of one worker. `add` is for the one thread that answers requests; it never waits and never raises."""

    def __init__(self, address: str, settings: dict[str, Any], version: str, lost: Callable[[str, int], None]) -> None:
        """Log to `address`, or nowhere if it is empty; `lost` is told of dropped requests: why, and how many.

        `settings` are those of request_log in params.yaml: `sample` and `redact`.
        """
        self.address, self.version, self.lost = address, version, lost
        self.sample, self.mask = settings["sample"], settings["redact"]
        self.entries: deque[Entry] = deque()
        self.put = self.done = 0  # bytes, each counted by one thread only: that needs no lock
        self.sink: request_log_files.Folder | request_log_files.Objects | None = None
        self.speak = 0.0  # when a failure may be told of again
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        if address:
            self.thread.start()
            atexit.register(self.close)  # where Java is lost; when it is asked to end, it kills its workers

    def add(self, entry: Entry) -> None:
        """Leave an entry to the thread, unless it is a probe's, not in the sample, or one too many."""
        if not self.address or entry.request_id == GOLDEN or not sampled(entry.request_id, self.sample):
            return
        if self.put - self.done > WAITING:
            self.lost("full", 1)
            return
        self.put += entry.size + WEIGHT
        self.entries.append(entry)

    def close(self) -> None:
        """Write what waits, if that takes no longer than FAREWELL; say of how many requests it is lost."""
        self.stopped.set()
        if not self.address:
            return
        self.thread.join(FAREWELL)
        if left := len(self.entries) + (self.sink.entries if self.sink else 0):
            log.error("The request log lacks the last %d requests: %s did not take them", left, self.address)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self.stopped.wait(PAUSE)
            self._write(b"", 0, last=ended)
            while self.entries:
                self._write(*self._slice(), last=ended)

    def _slice(self) -> tuple[bytes, int]:
        """Return the lines of what waits, up to SLICE, and of how many entries they are."""
        text, entries = bytearray(), 0
        while self.entries and len(text) < SLICE:
            entry = self.entries.popleft()
            for line in lines(entry, self.version, self.mask):
                text += line
                time.sleep(0)  # a request that waits for the interpreter goes first, not five milliseconds later
            self.done += entry.size + WEIGHT
            entries += 1
        return bytes(text), entries

    def _write(self, text: bytes, entries: int, *, last: bool) -> None:
        try:
            if self.sink is None:
                self.sink = request_log_files.sink(self.address)
            self.sink.write(text, entries, last=last)
        except request_log_files.LostError as error:
            self._failed(error.entries, str(error))
        except Exception as error:  # no such file system, or its package is missing
            self._failed(entries, f"{type(error).__name__}: {error}")

    def _failed(self, entries: int, reason: str) -> None:
        if entries:
            self.lost("failed", entries)
        if time.monotonic() >= self.speak:
            self.speak = time.monotonic() + SILENCE
            log.error("The request log cannot be written to %s: %s", self.address, reason)
