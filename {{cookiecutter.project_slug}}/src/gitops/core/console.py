"""The console: all that a command prints of data goes through `echo`, and a child process's output through `relay`.

A terminal obeys control characters. A GitHub runner obeys workflow commands in whatever a step prints: a line that
begins with `::`, or `##[` anywhere in it. Only the standard library is imported.

The runner (ActionCommand.cs, OutputManager.cs of https://github.com/actions/runner) ends a line at a line feed or a
carriage return, trims all white space of Unicode at its start, and takes names of commands in any case. It compares by
culture: weightless characters that are printable, such as U+FE0F, do not keep it from finding `::` after them. But it
takes the command's name from the third character on, and in such a line finds none there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Literal


def echo(*lines: object, error: bool = False) -> None:
    """Print `lines` as `printable` returns them, each from a new line, to stdout or, if `error`, to stderr."""
    print(*map(printable, lines), sep="\n", file=sys.stderr if error else sys.stdout, flush=True)


def annotate(level: Literal["warning", "error"], title: str, text: object) -> None:
    """Show `text` on the page of the run, where this is a job on GitHub; elsewhere do nothing."""
    if os.environ.get("GITHUB_ACTIONS"):
        print(f"::{level} title={title}::{one_line(text, 1000).replace('%', '%25')}", flush=True)


def confirmed(question: str) -> bool:
    """Ask whether to go on, and return whether the answer is yes; where nobody is at the console it is no."""
    if not sys.stdin.isatty():
        echo(f"{question} Nobody can be asked here, and --yes is not given: nothing is done")
        return False
    return input(f"{printable(question)} [y/N] ").strip().lower() in ("y", "yes")


def relay(command: Sequence[str | Path], env: Mapping[str, str] | None = None, log: Path | None = None) -> int:
    """Run `command`, `echo` each line of its output, also written to `log`, and return its exit status.

    On a terminal it has that to itself, for the sake of its progress bars, and nothing is written to `log`.
    """
    import subprocess

    if sys.stdout.isatty():
        return subprocess.run(command, env=env, check=False).returncode
    environment = {**(os.environ if env is None else env), "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w", encoding="utf-8") if log else nullcontext() as file,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,  # a line ends at a carriage return too
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        for line in process.stdout or ():
            if file:
                file.write(line)
            with suppress(BrokenPipeError):  # who closes the output (`make pipeline | head`) does not end what runs
                echo(line.removesuffix("\n"))
    return process.returncode


def printable(text: object) -> str:
    """Return `text` without control and invisible characters or workflow commands; line breaks are kept."""
    return "\n".join(_harmless(line) for line in str(text).split("\n"))


def one_line(text: object, limit: int = 500) -> str:
    """Return `text` as `printable` does, on one line of at most `limit` characters."""
    return printable(" ".join(str(text).split()))[:limit]


def _harmless(line: str) -> str:
    shown = "".join(character for character in line.replace("\t", " ") if character.isprintable())
    return re.sub(r"^( *):(?=:)", r"\1: ", shown).replace("##[", "## [")
