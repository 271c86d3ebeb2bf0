"""Puts the stand-in for kubectl into a folder for PATH."""

from __future__ import annotations

import sys
from pathlib import Path


def make(folder: Path) -> Path:
    """Return a folder with a program `kubectl` that is fake_kubectl.py."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    script = programs / "kubectl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{Path(__file__).with_name("fake_kubectl.py")}" "$@"\n')
    script.chmod(0o755)
    return programs
