"""Bring the archive that `make plan` has decided on to package/ (`make archive`), on the machine that builds the image.

It comes from the plan's own folder, where that holds it, or else from the DVC remote, by its md5.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gitops.core.artifacts import ProjectError, digest, replacing, run
from gitops.core.console import echo
from gitops.deployment import planned
from gitops.integrations import dvc
from gitops.releases.record import File


def main() -> None:
    """Bring the planned archive, or print why not."""
    archive = planned.read().candidate.package
    bring(archive)
    echo(f"{archive.path}: the planned archive, md5 {archive.md5}")


def bring(archive: File) -> None:
    """Make sure that the archive lies at its path. Raises ProjectError where it cannot be had."""
    target = Path(archive.path)
    if target.is_file() and digest(target, "md5") == archive.md5:
        return
    source = planned.ARCHIVES / target.name if planned.ARCHIVES.is_dir() else dvc.fetch(archive.md5)
    if not source.is_file():
        raise ProjectError(f"{source} is missing: run `make plan` again")
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if digest(temporary, "md5") != archive.md5:
            raise ProjectError(f"{source} is not the planned archive, md5 {archive.md5}: run `make plan` again")


if __name__ == "__main__":
    run(main)
