"""Serve the monitor's last metrics for Prometheus: `monitor.prom`, which `make monitor` writes beside the request log.

    python -m gitops.serving.server.drift_metrics [PORT]        (in the server's image; k8s/components/drift-metrics)

A thread reads the file once a minute from REQUEST_LOG, an address of fsspec's; a scrape gets what was read last and
waits for nothing. The file is data from outside: it is served if it is small and every line is a comment or a sample
of a known metric, and otherwise not at all. A file that is missing, refused or out of reach is a line in the log and
`model_monitor_readable 0`, without samples: `components/drift-metrics` has an alert on their absence.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

FILE = "monitor.prom"

PORT = 8083

#: The metrics that may be in the file: those of monitoring/report.py, which the image does not have.
KNOWN = (
    "model_monitor_drift",
    "model_monitor_failed_checks",
    "model_monitor_last_run_timestamp_seconds",
    "model_monitor_performance",
    "model_monitor_refused_requests",
    "model_monitor_rows",
    "model_monitor_status",
    "model_monitor_value",
    "model_monitor_value_high",
    "model_monitor_value_low",
    "model_monitor_value_rows",
)

#: Bytes of the file at most: more than a model of a thousand features has.
FILE_BYTES = 2**20

#: Seconds between two reads, and the age at which what was read is served no longer, and a stuck read ends the pod.
READ_INTERVAL, EXPIRY, STUCK = 60.0, 300.0, 600.0

#: Seconds that a client may take to send its request, or to take the answer.
CLIENT_TIMEOUT = 10.0

_NAME = "|".join(KNOWN)
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]{0,63}="(?:[^"\\\n]|\\[\\"n]){0,1000}"'
_NUMBER = r"-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?"

#: Source: https://prometheus.io/docs/instrumenting/exposition_formats/
LINE = re.compile(
    rf"# HELP (?:{_NAME}) [^\n]{{0,200}}|# TYPE (?:{_NAME}) gauge"
    rf"|(?:{_NAME})(?:\{{{_LABEL}(?:,{_LABEL}){{0,9}}\}})? {_NUMBER}",
    re.ASCII,
)

READABLE = """# HELP model_monitor_readable Whether the monitor's metrics could be read.
# TYPE model_monitor_readable gauge
model_monitor_readable"""

log = logging.getLogger(__name__)


def checked(content: bytes) -> str:
    """Return the file's text. Raises ValueError where it is not what the monitor writes, and quotes nothing of it."""
    if len(content) > FILE_BYTES:
        raise ValueError(f"more than {FILE_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if not text.endswith("\n"):
        raise ValueError("it does not end in a newline")
    for number, line in enumerate(text[:-1].split("\n"), 1):
        if not LINE.fullmatch(line):
            raise ValueError(f"line {number} is no sample of a metric of the monitor's")
    return text


def read(address: str) -> bytes:
    """Return the first FILE_BYTES + 1 bytes of the file beside the log. Raises what fsspec and its packages raise."""
    if "://" not in address:
        raise ValueError("an address such as s3://bucket/prefix is needed: components/request-log sets it")
    import fsspec

    files, folder = fsspec.core.url_to_fs(address)
    return bytes(files.cat_file(f"{folder.rstrip('/')}/{FILE}", start=0, end=FILE_BYTES + 1))


class Reader:
    """Keeps the metrics that were read last. `tried` and `succeeded` are times of the monotonic clock."""

    def __init__(self, address: str) -> None:
        self.address, self.text, self.failure = address, "", ""
        self.tried = time.monotonic()
        self.succeeded = -EXPIRY

    def update(self) -> None:
        """Read the file. A failure is logged when it is another one than before; nothing is raised."""
        failure = ""
        try:
            self.text = checked(read(self.address))
            self.succeeded = time.monotonic()
        except Exception as error:  # each cloud's package has its own errors
            failure = f"{type(error).__name__}: {error}"
        self.tried = time.monotonic()
        if failure != self.failure:
            self.failure = failure
            place = f"{FILE} beside the request log (REQUEST_LOG is {self.address!r})"
            if failure:
                log.error("%s cannot be served: %s", place, failure)
            else:
                log.info("%s is served again", place)

    def metrics(self) -> str:
        """Return what Prometheus gets: the samples only while the last successful read is recent."""
        if self.failure or time.monotonic() - self.succeeded > EXPIRY:
            return f"{READABLE} 0\n"
        return f"{self.text}{READABLE} 1\n"

    def stuck(self) -> bool:
        """Return whether a read neither ends nor fails, which a new process may mend."""
        return time.monotonic() - self.tried > STUCK

    def run(self) -> None:
        """Read for ever."""
        while True:
            self.update()
            time.sleep(READ_INTERVAL)


class Handler(BaseHTTPRequestHandler):
    """Answers /metrics and /health, and nothing else."""

    reader: ClassVar[Reader]
    timeout = CLIENT_TIMEOUT

    def do_GET(self) -> None:
        """Answer from memory."""
        if self.path == "/metrics":
            self._answer(200, self.reader.metrics())
        elif self.path == "/health":
            self._answer(*((503, "the last read does not end\n") if self.reader.stuck() else (200, "ok\n")))
        else:
            self._answer(404, "there are /metrics and /health\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log no request: Prometheus and the kubelet ask several times a minute."""


def main(port: int) -> None:
    """Serve on `port` of every address until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default for it
    Handler.reader = Reader(os.environ.get("REQUEST_LOG", ""))
    threading.Thread(target=Handler.reader.run, name="reader", daemon=True).start()
    with ThreadingHTTPServer(("", port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT)
