"""Where the request log is written: files in a folder, or objects at any fsspec address (s3://bucket/prefix).

A file is named date=<YYYY-MM-DD>/hour=<HH>/<UTC time>-<host>-<process>-<number>.jsonl by the time at which it is begun,
so that names sort by time, no two servers share one, and readers need not list what is older than they want. It is
never continued into another hour. In a folder it grows by whole lines; a reader ignores a last line without newline,
which a crash may leave.
"""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

#: Size in bytes and age in seconds at which the next file is begun.
FILE_BYTES = 8 * 2**20
FILE_SECONDS = 3600.0

#: Bytes of a folder's files beyond which the oldest are deleted: half of a pod's /logs (k8s/base/deployment.yaml).
FOLDER_BYTES = 128 * 2**20

#: Seconds after a failed write to a folder before the next one: a full disk stays full for a while.
RETRY_INTERVAL = 5.0

#: An object is written once it has so many bytes, or its first line is so many seconds old: what a killed pod loses.
OBJECT_BYTES = 4 * 2**20
OBJECT_SECONDS = 10.0

#: Bytes that are kept for a retry while an address does not answer.
KEPT_BYTES = 16 * 2**20

NAME = re.compile(r"\d{8}T\d{6}-[\w.-]+-\d+-\d+\.jsonl")

_numbers = count(1)


class LostError(Exception):
    """Lines could not be written, and those of `entries` requests are lost: 0 if they are kept for a retry."""

    def __init__(self, entries: int, message: str) -> None:
        self.entries = entries
        super().__init__(message)


def sink(address: str) -> Folder | Objects:
    """Return the writer for `address`. Raises what fsspec raises for an unknown protocol or one without its package."""
    return Objects(address) if "://" in address else Folder(Path(address))


def _hour(now: float) -> str:
    """Return the folder of files that are begun at a time, below the log's."""
    return time.strftime("date=%Y-%m-%d/hour=%H", time.gmtime(now))


def _name(now: float) -> str:
    """Return the name of a file that is begun at a time."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{host}-{os.getpid()}-{next(_numbers):06d}.jsonl"


class Folder:
    """Writes files to a folder, which is created if missing; together they stay below FOLDER_BYTES + FILE_BYTES."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = 0  # none are kept for a retry
        self.file: Any = None
        self.hour = ""
        self.size = 0
        self.expires = 0.0
        self.retry_at = 0.0

    def write(self, lines: bytes, entries: int, *, last: bool = False) -> None:
        """Append the lines, to a new file if the current one is full, old or of another hour. Raises LostError."""
        if not lines:
            return
        if time.monotonic() < self.retry_at:
            raise LostError(entries, f"a write failed less than {RETRY_INTERVAL:.0f} s ago")
        try:
            now = time.time()
            full = self.size + len(lines) > FILE_BYTES
            if self.file is None or full or time.monotonic() > self.expires or _hour(now) != self.hour:
                self._open(now)
            written = self.file.write(lines)  # one system call: the file is unbuffered
            if written != len(lines):
                raise OSError(f"only {written} of {len(lines)} bytes could be written: the disk is full")
            self.size += written
        except OSError as error:
            self._abandon()
            self.retry_at = time.monotonic() + RETRY_INTERVAL
            raise LostError(entries, str(error)) from error

    def _open(self, now: float) -> None:
        self._abandon()
        self.hour = _hour(now)
        (self.folder / self.hour).mkdir(parents=True, exist_ok=True)
        self._prune()
        self.file = (self.folder / self.hour / _name(now)).open("ab", buffering=0)
        self.size, self.expires = 0, time.monotonic() + FILE_SECONDS

    def _prune(self) -> None:
        """Delete the oldest files beyond FOLDER_BYTES, and the hours that are empty then.

        Only files that are named like the log's count, those of earlier versions, which lie in no hour, among them.
        """
        found = [*self.folder.glob("*.jsonl"), *self.folder.glob("date=*/hour=*/*.jsonl")]
        files = sorted((path for path in found if NAME.fullmatch(path.name)), key=lambda path: path.name, reverse=True)
        total = 0
        for path in files:
            with suppress(FileNotFoundError):  # another worker deletes too
                total += path.stat().st_size
                if total > FOLDER_BYTES:
                    path.unlink()
                    self._remove_empty(path.parent)

    def _remove_empty(self, hour: Path) -> None:
        """Remove the folder of an hour, and of its day, if it is empty and not the present one."""
        if hour not in (self.folder, self.folder / self.hour):
            with suppress(OSError):  # not empty
                hour.rmdir()
                hour.parent.rmdir()

    def _abandon(self) -> None:
        """Close the current file, and delete it if it is empty; after a failure its last line may be torn."""
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
                if not self.size and not os.path.getsize(self.file.name):
                    os.unlink(self.file.name)
            self.file = None


class Objects:
    """Writes objects to an fsspec address, each whole. If a write fails, the lines are kept for a retry."""

    def __init__(self, address: str) -> None:
        import fsspec

        local = {"auto_mkdir": True} if address.startswith(("file://", "local://")) else {}
        self.system, self.folder = fsspec.core.url_to_fs(address, **local)
        self.lines = bytearray()
        self.entries = 0
        self.due = 0.0

    def write(self, lines: bytes, entries: int, *, last: bool = False) -> None:
        """Buffer the lines, and write an object if one is due or these are the last lines. Raises LostError."""
        now = time.monotonic()
        if lines and not self.lines:
            self.due = now + OBJECT_SECONDS
        full = len(self.lines) < OBJECT_BYTES <= len(self.lines) + len(lines)
        self.lines += lines
        self.entries += entries
        if self.lines and (full or last or now >= self.due):
            self.due = now + OBJECT_SECONDS
            self._put()

    def _put(self) -> None:
        try:
            now = time.time()
            self.system.pipe_file(f"{self.folder}/{_hour(now)}/{_name(now)}", bytes(self.lines))
        except Exception as error:
            lost = 0
            if len(self.lines) > KEPT_BYTES:
                lost, self.entries = self.entries, 0
                self.lines.clear()
            raise LostError(lost, f"{type(error).__name__}: {error}") from error
        self.lines.clear()
        self.entries = 0
