"""Bare Git repositories of a folder over HTTP, to read only: what stands for GitHub where a cluster has to fetch.

Git's own program answers, started for each request as CGI (RFC 3875): https://git-scm.com/docs/git-http-backend. It
refuses pushes, because no request has a user.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGEST = 1 << 20  # what a client that fetches sends is a list of commits

#: Request headers that git reads, and the names that CGI has for them.
HEADERS = {"Content-Type": "CONTENT_TYPE", "Content-Encoding": "HTTP_CONTENT_ENCODING", "Git-Protocol": "GIT_PROTOCOL"}


@contextmanager
def serve(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the repositories in `folder` at a free port of `host`, and yield the address of the folder."""

    class Handler(GitHandler):
        root = folder.resolve()

    with ThreadingHTTPServer((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()


class GitHandler(BaseHTTPRequestHandler):
    """One request, answered by `git http-backend`."""

    root: Path

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length.isdigit() else HTTPStatus.LENGTH_REQUIRED)
            return
        self.answer(self.rfile.read(int(length)))

    def answer(self, body: bytes) -> None:
        """Hand the request to git and its answer to the client."""
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            **{name: self.headers[header] for header, name in HEADERS.items() if header in self.headers},
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = BytesParser().parsebytes(head)
        if not fields:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self.send_response(int(fields.get("Status", "200").split()[0]))
        for name in ("Content-Type", "Cache-Control"):
            if name in fields:
                self.send_header(name, fields[name])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a cluster asks every few seconds."""
