"""How the commands of this sub-package end: like those of core/failures.py, which the images' first stages lack."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Where a traceback is written.
FOLDER = Path("reports/errors")


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`; an unexpected error is one line and a file with the traceback, and exit status 1."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # these commands have no other pipe than their output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        place = "no traceback, because it cannot be written"
        with suppress(OSError):
            FOLDER.mkdir(parents=True, exist_ok=True)
            path = FOLDER / f"{Path(sys.argv[0]).stem}.txt"
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(traceback.format_exc(), encoding="utf-8")
            temporary.replace(path)
            place = f"traceback: {path}"
        message = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(f"error: {Path(sys.argv[0]).stem} failed: {message}; {place}")
