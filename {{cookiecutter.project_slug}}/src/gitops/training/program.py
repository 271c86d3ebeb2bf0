"""The file of a trained network: a program of torch.export."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from gitops.core import artifacts


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the program, whole or not at all, with the same bytes for the same program."""
    archive = io.BytesIO()  # saved to a file, it would hold the temporary file's name
    torch.export.save(program, archive)
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(archive.getbuffer())
