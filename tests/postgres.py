"""A Postgres of this machine's own, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import free_port


def program(name: str) -> str:
    """Return the path of one of Postgres' programs, which Debian keeps off PATH; skip where there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if found := shutil.which(name) or (str(installed[-1]) if installed else ""):
        return found
    pytest.skip(f"{name} of Postgres is not installed")


@contextmanager
def postgres(name: str, password: str) -> Iterator[dict[str, str]]:
    """Run a Postgres with a user and database of this name; yields how libpq reaches it. Skips where there is none."""
    initdb, server_program = program("initdb"), program("postgres")
    # Postgres refuses to run as root, and Debian's package makes it a user.
    user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        shutil.chown(folder, "postgres")
    secret = folder / "password"
    secret.write_text(password + "\n")
    secret.chmod(0o644)
    data = folder / "data"
    common: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}
    command = [initdb, "--auth=scram-sha-256", f"--username={name}", f"--pwfile={secret}", "--no-sync", "-D", str(data)]
    subprocess.run(command, check=True, **common)
    options = [f"--port={port}", "--listen_addresses=127.0.0.1", f"--unix_socket_directories={folder}", "--fsync=off"]
    server = subprocess.Popen([server_program, "-D", str(data), *options], stderr=subprocess.DEVNULL, **common)
    reach = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": name, "PGPASSWORD": password}
    try:
        create = [program("createdb"), "--maintenance-db=postgres", name]
        wait_until(lambda: subprocess.run(create, env=reach, capture_output=True).returncode == 0, server)
        yield {**reach, "PGDATABASE": name}
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[Any], seconds: float = 120) -> None:
    """Wait until it is so. Raises AssertionError where the process ends before, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{process.args!r} is not ready after {seconds} s"
        time.sleep(0.2)
