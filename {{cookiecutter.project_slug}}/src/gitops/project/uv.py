"""The uv and the Python that make environments and locks: found, checked and, for uv, installed where it is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VENV = Path(".venv")
PYTHONS = [(3, 11), (3, 12)]

#: Variables that put packages elsewhere than into the environment, or others than the lock's. Those that say where
#: packages come from (indexes, folders, proxies) are the user's to set.
DIVERTING = (
    *("PYTHONHOME", "PYTHONPATH"),
    *("PIP_CONSTRAINT", "PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_REQUIRE_HASHES", "PIP_ROOT", "PIP_TARGET"),
    *("UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE", "UV_OVERRIDE", "UV_REQUIRE_HASHES", "UV_WORKING_DIR"),
    *("UV_WORKING_DIRECTORY",),
)

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
            command = [candidate, "--version"]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
            numbers = [int(number) for number in re.findall(r"\d+", done.stdout)[:2]]
            if numbers >= [int(number) for number in UV.split(".")[:2]]:
                return candidate
    check_python()
    run(sys.executable, "-m", "venv", "--clear", VENV / "uv")
    pip = (VENV / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, f"uv=={UV}", env=environment() | {"PIP_USER": "0"})
    if not own.exists():
        sys.exit(
            f"error: pip put no uv into {own.parent}: remove what sends it elsewhere, such as `target` in pip.conf"
        )
    return own


def environment() -> dict[str, str]:
    """Return the variables with which pip and uv make the environments."""
    return without(os.environ, *DIVERTING)


def run(*command: str | Path, env: Mapping[str, str] | None = None, text: str | None = None) -> None:
    """Run the command, with `text` as its input; where it fails, end with its status after what it printed."""
    status = subprocess.run(command, env=env or environment(), input=text, text=True, check=False).returncode
    if status:
        sys.exit(f"error: `{' '.join(map(str, command))}` ended with status {status}; the reason stands above")


def quiet() -> list[str]:
    """Return uv's option for no progress bars, which belong on a terminal only."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key not in names}
