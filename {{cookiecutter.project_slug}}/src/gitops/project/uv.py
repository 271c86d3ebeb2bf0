"""The uv and the Python that make environments and locks: found, checked and, for uv, installed where it is missing."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VENV = Path(".venv")
PYTHONS = [(3, 11), (3, 12)]

UV = "0.13.9"  # installed where no uv of this minor version or a later one is on PATH


def check_python() -> None:
    if sys.version_info[:2] not in PYTHONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        newer = f" (Deepchecks needs numpy<2, which has no wheel for {sys.version_info[0]}.{sys.version_info[1]})"
        sys.exit(
            f"error: {sys.executable} is Python {platform.python_version()}, and {wanted} is needed"
            f"{newer if sys.version_info[:2] > PYTHONS[-1] else ''}: "
            f"name one with `make ... PYTHON=python{PYTHONS[-1][0]}.{PYTHONS[-1][1]}`"
        )


def find_uv() -> str | Path:
    """Return a uv that is new enough: from PATH, or a pinned one in .venv/uv, installed where it is missing."""
    own = VENV / "uv" / "bin" / "uv"
    for candidate in (shutil.which("uv"), shutil.which(own)):
        if candidate:
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
            numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
            if numbers >= [int(number) for number in UV.split(".")[:2]]:
                return candidate
    check_python()
    run(sys.executable, "-m", "venv", "--clear", VENV / "uv")
    run(VENV / "uv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={UV}")
    return own


def run(*command: str | Path, env: Mapping[str, str] | None = None, text: str | None = None) -> None:
    """Run the command, with `text` as its input; where it fails, end with its status after what it printed."""
    status = subprocess.run(command, env=env, input=text, text=True, check=False).returncode
    if status:
        sys.exit(f"error: `{' '.join(map(str, command))}` ended with status {status}; the reason stands above")


def quiet() -> list[str]:
    """Return uv's option for no progress bars, which belong on a terminal only."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key not in names}
