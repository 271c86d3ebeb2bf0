"""Where MLflow has its files, if its database is a file of the project: mlflow.db, with the folder mlruns beside it.

    python -m gitops.integrations.mlflow_files

makes the database, which takes MLflow five seconds: `make pipeline` does it while the stages before `train` run.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.console import echo
from gitops.integrations import mlflow_server

DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlruns")

#: Where the database holds the absolute path of a folder in ARTIFACTS.
PLACES = (
    ("experiments", "artifact_location"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("runs", "artifact_uri"),
)


def follow_move() -> None:
    """Correct the paths in the database after the project was moved or copied: MLflow would write to the old place.

    The old place is that of the experiment 0, with which MLflow creates a database. An address is none, such as that of
    a server's artifacts; what lies elsewhere stays there.
    """
    if not DATABASE.exists():
        return
    database = sqlite3.connect(DATABASE, timeout=60)
    try:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        first = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
        before, _, experiment = first[0].rpartition("/") if first else ("", "", "")
        now = str(ARTIFACTS.absolute())
        if experiment != "0" or not Path(before).is_absolute() or before == now:
            return
        with database:
            for table, column in PLACES:
                if table in tables:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                        (now, len(before) + 1, len(before) + 1, f"{before}/"),
                    )
    finally:
        database.close()
    echo(f"the project was in {Path(before).parent}: MLflow's runs in {DATABASE} now have their files in {ARTIFACTS}/")


def missing() -> bool:
    """Tell whether MLflow's database would be the project's own, and is not there yet."""
    return not os.environ.get(mlflow_server.VARIABLE) and not DATABASE.exists()


def allow_percent() -> None:
    """Let MLflow create its database where the path of its own files has a `%`, which it does not escape (3.17)."""
    if "%" not in sys.prefix:
        return
    from alembic.config import Config

    plain = Config.set_main_option

    def escaped(self: Any, name: str, value: str) -> None:
        plain(self, name, value.replace("%", "%%") if Path(value).exists() else value)

    Config.set_main_option = escaped  # type: ignore[method-assign]


def main() -> None:
    """Make the database, whole or not at all. Raises ProjectError."""
    with artifacts.replacing(DATABASE) as temporary:
        os.environ[mlflow_server.VARIABLE] = f"sqlite:///{temporary}"
        from gitops.integrations import tracking

        mlflow = tracking.load()
        with tracking.errors():
            mlflow.search_experiments()


if __name__ == "__main__":
    artifacts.run(main)
