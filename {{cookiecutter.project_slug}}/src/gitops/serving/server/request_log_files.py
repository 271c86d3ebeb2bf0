"""Where the request log's lines go: files of a folder, or objects at any fsspec address (s3://bucket/prefix).

A file is named <UTC time>-<host>-<process>-<number>.jsonl, so that names sort by time and no two servers share one. In
a folder it grows by whole lines; who reads it while it does, or after a crash, leaves out a last line without newline.
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

#: A file's bytes and seconds at most: what a reader opens at once, and how long old files stay recent.
FILE_BYTES = 8 * 2**20
FILE_SECONDS = 3600.0

#: Bytes of all files in a folder, the oldest of which are deleted: half of the pods' /logs (k8s/base/deployment.yaml).
FOLDER_BYTES = 128 * 2**20

#: Seconds in which nothing is tried, and all is lost, after a folder's failure: a full disk stays full for a while.
RECOVERY = 5.0

#: An object is written when there are so many bytes or seconds of lines: what a pod that is stopped may lose.
OBJECT_BYTES = 4 * 2**20
OBJECT_SECONDS = 10.0

#: Bytes that are kept for another try where an address does not answer.
KEPT_BYTES = 16 * 2**20

NAME = re.compile(r"\d{8}T\d{6}-[\w.-]+-\d+-\d+\.jsonl")

_numbers = count(1)


class LostError(Exception):
    """Lines could not be written, and those of `entries` requests are lost: 0 where they are tried again."""

    def __init__(self, entries: int, message: str) -> None:
        self.entries = entries
        super().__init__(message)


def sink(address: str) -> Folder | Objects:
    """Return what writes to `address`. Raises what fsspec raises where it knows none such, or lacks its package."""
    return Objects(address) if "://" in address else Folder(Path(address))


def _name() -> str:
    """Return the name of a new file."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{host}-{os.getpid()}-{next(_numbers):06d}.jsonl"


class Folder:
    """Files of a folder, which is made where it is missing; together they stay below FOLDER_BYTES + FILE_BYTES."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = 0  # none are kept
        self.file: Any = None
        self.size = 0
        self.end = 0.0
        self.again = 0.0

    def write(self, lines: bytes, entries: int, *, last: bool = False) -> None:
        """Append the lines, to a new file where the present one is full or old. Raises LostError."""
        if not lines:
            return
        if time.monotonic() < self.again:
            raise LostError(entries, f"it failed less than {RECOVERY:.0f} s ago")
        try:
            if self.file is None or self.size + len(lines) > FILE_BYTES or time.monotonic() > self.end:
                self._open()
            written = self.file.write(lines)  # one system call: it has no buffer
            if written != len(lines):
                raise OSError(f"only {written} of {len(lines)} bytes could be written: the disk is full")
            self.size += written
        except OSError as error:
            self._abandon()
            self.again = time.monotonic() + RECOVERY
            raise LostError(entries, str(error)) from error

    def _open(self) -> None:
        self._abandon()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        self.file = (self.folder / _name()).open("ab", buffering=0)
        self.size, self.end = 0, time.monotonic() + FILE_SECONDS

    def _prune(self) -> None:
        """Delete the oldest files beyond FOLDER_BYTES; what has another name than the log's is left alone."""
        files = sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)
        total = 0
        for path in files:
            with suppress(FileNotFoundError):  # another worker deletes too
                total += path.stat().st_size
                if total > FOLDER_BYTES:
                    path.unlink()

    def _abandon(self) -> None:
        """Leave the present file as it is; after a failure its last line may be torn."""
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
                if not self.size and not os.path.getsize(self.file.name):
                    os.unlink(self.file.name)
            self.file = None


class Objects:
    """Objects at an fsspec address, each written whole. Where it does not answer, they wait for another try."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.system, self.folder = fsspec.core.url_to_fs(address)
        self.lines = bytearray()
        self.entries = 0
        self.due = 0.0

    def write(self, lines: bytes, entries: int, *, last: bool = False) -> None:
        """Keep the lines, and write an object when it is time for one, or these are the last. Raises LostError."""
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
