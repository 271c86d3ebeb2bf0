"""The online feature store without the subject: Redis loses its key; SQLite's file is a result, and goes as a whole.

Feast is in an environment of its own, where feature_store/forget.py asks Redis.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject

PYTHON = Path(".venv/features/bin/python")


def search(subject: Subject, settings: Params) -> int:
    """Return how many entities of the store in FEATURE_STORE_REDIS are the subject: 0 or 1. Raises ProjectError."""
    return _forget(subject, settings, "--count")


def erase(subject: Subject, settings: Params) -> int:
    """Remove it there, and return the same. Raises ProjectError."""
    return _forget(subject, settings)


def _forget(subject: Subject, settings: Params, *options: str) -> int:
    if settings.feature_store is None or subject.column is None or not os.environ.get("FEATURE_STORE_REDIS"):
        return 0
    if not PYTHON.exists():
        raise ProjectError(f"{PYTHON} is missing: run `make setup` first")
    command: list[str | Path] = [PYTHON, "-m", "gitops.feature_store.forget", *options]
    environment = os.environ | {"ID": subject.value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProjectError(f"the online store could not be asked: {done.stderr.strip()[-500:]}")
    return int(done.stdout)
