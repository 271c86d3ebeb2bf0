"""The part of `make explore` that DVC does, in one process: fetch or build the splits as `make pipeline` would."""

from __future__ import annotations

from gitops.core import artifacts, params
from gitops.core.console import echo
from gitops.integrations import dvc, dvc_repro, dvc_stages
from gitops.tabular import parts

STAGE = "prepare"


def main() -> int:
    """Bring the splits up to date; return 0, or 1 where a stage failed. Raises ProjectError."""
    settings = params.load()
    for table in (*settings.tables, parts.FOLDER):
        if dvc.follow(table):
            echo(f"{table} was an older version: it is now the one in {table}.dvc")
    before = dvc_stages.around(STAGE, sources=True).before
    return 0 if dvc_repro.reproduce([*before, STAGE], "pull") else 1


if __name__ == "__main__":
    artifacts.run(main)
