"""The request log: requests and their answers as JSON lines in rotated files (docs/system-design.md).

The handler only appends an entry to a queue; a thread turns entries into text and writes it to the folder, or the
fsspec address, that REQUEST_LOG names. Entries that the thread cannot keep up with, or cannot write, are dropped and
counted. fsspec, which comes with torch, is imported only for an address with ://.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gitops.serving.server import request_log_files

#: The id of the smoke test's request, which is not logged (probe.py).
GOLDEN = "golden-request"

#: The id of the request by which start.py asks the handler to flush the log, before it stops the server. No client can
#: send it: the proxy replaces ids that have a slash.
FLUSH = "/flush"

#: What stands in the log for the value of a redacted column (monitoring/request_log.py looks for it).
REDACTED = "redacted"

#: Bytes of request bodies in the queue, at most: three seconds of a worker under full load with small requests. As
#: Python objects they take about six times as much, which a pod's memory has room for.
QUEUE_BYTES = 16 * 2**20

#: Seconds between two looks at the queue. Requests do not wake the thread: it would take the processor from them.
POLL_INTERVAL = 0.2

#: Seconds for writing the rest of the queue when the process ends.
SHUTDOWN_TIMEOUT = 4.0

#: Seconds between two lines about failures in the server's own log.
ERROR_INTERVAL = 60.0

#: Bytes of lines in one write, at most.
CHUNK_BYTES = 2**20

#: Bytes that an entry takes in addition to its body: the objects, the answer.
ENTRY_OVERHEAD = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A request and its answer: `rows` with their `predictions`, or a `status` other than 200 with its `problems`.

    `size` is the length of the body in bytes, `client` who sent it, `time` the Unix time of the answer.
    """

    request_id: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[Any] = field(default_factory=list)
    status: int = 200
    problems: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    client: str = ""
    time: float = field(default_factory=time.time)


def sampled(request_id: str, fraction: float) -> bool:
    """Tell whether a request with this id is in the logged `fraction`: every server decides the same, every time."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def lines(entry: Entry, version: str, redact: list[str]) -> Iterator[bytes]:
    """Yield an entry's lines: one for each instance, or a single one if the request got no prediction."""
    moment = datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    common = {"time": moment, "request_id": entry.request_id}
    if entry.client:
        common["client"] = REDACTED if "client" in redact else entry.client
    if entry.status != 200:
        errors = [_redacted(problem, redact) for problem in entry.problems]
        yield _line(common | {"model_version": version, "status": entry.status, "errors": errors})
        return
    for index, (row, prediction) in enumerate(zip(entry.rows, entry.predictions, strict=True)):
        inputs = row | {name: REDACTED for name in redact if name in row}  # `client` may be no column
        instance = {"instance": index, "model_version": version, "inputs": inputs, "prediction": prediction}
        yield _line(common | instance)


def _redacted(problem: dict[str, Any], redact: list[str]) -> dict[str, Any]:
    """Return a problem whose text shows no redacted value: it may quote the value, or a row that is not an object."""
    about_row = problem["instance"] is not None and problem["column"] is None
    return problem | {"error": REDACTED} if problem["column"] in redact or (redact and about_row) else problem


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii") + b"\n"


class RequestLog:
    """The log of one worker. `add` is called by the one thread that answers requests; it never waits or raises."""

    def __init__(
        self, address: str, settings: dict[str, Any], version: str, dropped: Callable[[str, int], None]
    ) -> None:
        """Log to `address`, or nowhere if it is empty; call `dropped` with a reason and a number of dropped requests.

        `settings` are those of request_log in params.yaml: `sample` and `redact`.
        """
        self.address, self.version, self.dropped = address, version, dropped
        self.sample, self.redact = settings["sample"], settings["redact"]
        self.entries: deque[Entry] = deque()
        self.queued = self.taken = 0  # bytes, each counted by one thread only: no lock is needed
        self.sink: request_log_files.Folder | request_log_files.Objects | None = None
        self.next_report = 0.0  # when a failure may be reported again
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        if address:
            self.thread.start()
            atexit.register(self.close)  # a worker that has lost Java ends by itself

    def add(self, entry: Entry) -> None:
        """Queue an entry, unless it is a smoke test, not in the sample, or the queue is full."""
        if not self.address or entry.request_id == GOLDEN or not sampled(entry.request_id, self.sample):
            return
        if self.queued - self.taken > QUEUE_BYTES:
            self.dropped("full", 1)
            return
        self.queued += entry.size + ENTRY_OVERHEAD
        self.entries.append(entry)

    def close(self) -> None:
        """Write the queue within SHUTDOWN_TIMEOUT, and report how many requests are lost if that fails."""
        self.stopped.set()
        if not self.address:
            return
        self.thread.join(SHUTDOWN_TIMEOUT)
        if left := len(self.entries) + (self.sink.entries if self.sink else 0):
            log.error(
                "The last %d requests are missing from the request log: %s did not accept them", left, self.address
            )

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self.stopped.wait(POLL_INTERVAL)
            self._write(b"", 0, last=ended)
            while self.entries:
                self._write(*self._chunk(), last=ended)

    def _chunk(self) -> tuple[bytes, int]:
        """Return up to CHUNK_BYTES of queued lines, and the number of their entries."""
        text, entries = bytearray(), 0
        while self.entries and len(text) < CHUNK_BYTES:
            entry = self.entries.popleft()
            for line in lines(entry, self.version, self.redact):
                text += line
                time.sleep(0)  # lets a request that waits for the interpreter run now, not five milliseconds later
            self.taken += entry.size + ENTRY_OVERHEAD
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
            self.dropped("failed", entries)
        if time.monotonic() >= self.next_report:
            self.next_report = time.monotonic() + ERROR_INTERVAL
            log.error("The request log cannot be written to %s: %s", self.address, reason)
