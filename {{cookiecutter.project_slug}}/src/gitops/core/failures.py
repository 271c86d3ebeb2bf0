"""How a command ends: with its exit status, or with one line that says why it failed.

A ProjectError is that line. Of any other exception the line names the type, the message, the place in the project's
code and the file with the traceback; that file and the line hold no password of an address and no value of a secret
environment variable. A reader that has closed the pipe (`make trace | head -1`) ends a command without a line. Only the
standard library is imported: every environment uses this module.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gitops.core.console import echo, one_line

#: The folder of the packages.
SOURCE = Path(__file__).resolve().parents[2]

#: Where tracebacks are written: one file a command, that of its last failure.
FOLDER = Path("reports/errors")

#: Exit statuses by the shell's convention: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE

#: What the machine refuses: the path explains it, a traceback does not.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS)

#: Environment variables whose values are secrets, by their names.
SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|(^|_)KEY($|_)|ACCESS_KEY|PRIVATE_KEY")


class ProjectError(Exception):
    """An error that the user can fix: the message names the setting or file, what is wrong and what would be right."""


def run(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit with its status, or with the status of its failure, which is printed."""
    status: str | int | None
    try:
        status = main()
    except SystemExit as error:
        status = error.code
    except BaseException as error:  # KeyboardInterrupt too: it is a way to end
        status = report(error)
    # Python ends by searching all that was imported for garbage: a second where that is PyTorch.
    gc.freeze()
    sys.exit(_flush(status))


def on_import(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report what is raised before `run`, while a command's modules are imported: a mistake in one of them, mostly.

    It is Python's hook for exceptions that nobody catches; programs other than those in src/ keep Python's own.
    """
    origin = getattr(getattr(sys.modules["__main__"], "__spec__", None), "origin", None)
    if origin and Path(origin).resolve().is_relative_to(SOURCE):
        report(error)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = on_import


def report(error: BaseException) -> int:
    """Print why a command failed, on one line unless it is a ProjectError of several, and return its exit status."""
    if isinstance(error, ProjectError):
        return _say(f"error: {error}")
    if isinstance(error, KeyboardInterrupt):
        return _say("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return CLOSED_PIPE
    if isinstance(error, OSError) and error.errno in REFUSED and error.filename is not None:
        return _say(one_line(f"error: {error.strerror}: {error.filename}"))
    line = one_line(without_secrets(f"error: {_command()} failed: {type(error).__name__}: {error}"))
    text = without_secrets("".join(traceback.format_exception(error)))
    try:
        return _say(f"{line}{_place(error)}; traceback: {_save(text)}")
    except OSError:  # a file system that cannot be written to, as in a pod: its log is the place
        return _say(f"{line}{_place(error)}\n{text}")


def without_secrets(text: str) -> str:
    """Return `text` without the user and password in addresses and the values of secret environment variables."""
    for name, value in os.environ.items():
        if len(value) >= 6 and SECRET.search(name.upper()):
            text = text.replace(value, "***")
    return re.sub(r"(?<=://)[^\s/'\"]*@", "", text)


def _say(line: str, status: int = 1) -> int:
    with suppress(OSError):
        echo(without_secrets(line), error=True)
    return status


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).stem


def _place(error: BaseException) -> str:
    """Return the innermost line of the project's own code in the traceback, as " (FILE:LINE)", or nothing."""
    source = Path.cwd() / "src"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(source)
    ]
    return f" ({Path(frames[-1].filename).relative_to(Path.cwd())}:{frames[-1].lineno})" if frames else ""


def _save(text: str) -> Path:
    """Write a traceback, whole or not at all, readable by its owner alone; return its path. Raises OSError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{_command()}.txt"
    handle, temporary = tempfile.mkstemp(dir=FOLDER, prefix=".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _reader_is_gone() -> bool:
    """Tell whether the pipe that was broken is the output, and not a connection to somewhere else."""
    watched = select.poll()
    for descriptor in (1, 2):
        watched.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def _flush(status: str | int | None) -> str | int | None:
    """Flush the output, which Python would otherwise do while it exits, with a traceback where that fails.

    Returns `status`, or that of the failure where the command itself had none.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            error.filename = "standard output"
            failed = report(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            status = status or failed
    return status
