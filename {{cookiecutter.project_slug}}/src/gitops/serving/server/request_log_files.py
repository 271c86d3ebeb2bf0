"""Where the request log is written: files in a folder, or objects at any fsspec address (s3://bucket/prefix).

A file is named <UTC time>-<host>-<process>-<number>.jsonl, so that names sort by time and no two servers share one. In
a folder it grows by whole lines; a reader ignores a last line without newline, which a crash may leave.
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


def _name() -> str:
    """Return the name of a new file."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{host}-{os.getpid()}-{next(_numbers):06d}.jsonl"


class Folder:
    """Writes files to a folder, which is created if missing; together they stay below FOLDER_BYTES + FILE_BYTES."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = 0  # none are kept for a retry
        self.file: Any = None
        self.size = 0
        self.expires = 0.0
        self.retry_at = 0.0

    def write(self, lines: bytes, entries: int, *, last: bool = False) -> None:
        """Append the lines, to a new file if the current one is full or old. Raises LostError."""
        if not lines:
            return
        if time.monotonic() < self.retry_at:
            raise LostError(entries, f"a write failed less than {RETRY_INTERVAL:.0f} s ago")
        try:
            if self.file is None or self.size + len(lines) > FILE_BYTES or time.monotonic() > self.expires:
                self._open()
            written = self.file.write(lines)  # one system call: the file is unbuffered
            if written != len(lines):
                raise OSError(f"only {written} of {len(lines)} bytes could be written: the disk is full")
            self.size += written
        except OSError as error:
            self._abandon()
            self.retry_at = time.monotonic() + RETRY_INTERVAL
            raise LostError(entries, str(error)) from error

    def _open(self) -> None:
        self._abandon()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        self.file = (self.folder / _name()).open("ab", buffering=0)
        self.size, self.expires = 0, time.monotonic() + FILE_SECONDS

    def _prune(self) -> None:
        """Delete the oldest files beyond FOLDER_BYTES; only files that are named like the log's count."""
        files = sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)
        total = 0
        for path in files:
            with suppress(FileNotFoundError):  # another worker deletes too
                total += path.stat().st_size
                if total > FOLDER_BYTES:
                    path.unlink()

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

        self.system, self.folder = fsspec.core.url_to_fs(address)
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
            self.system.pipe_file(f"{self.folder}/{_name()}", bytes(self.lines))
        except Exception as error:
            lost = 0
            if len(self.lines) > KEPT_BYTES:
                lost, self.entries = self.entries, 0
                self.lines.clear()
            raise LostError(lost, f"{type(error).__name__}: {error}") from error
        self.lines.clear()
        self.entries = 0
