"""Copy the newest dump of MLflow's database to DUMPS_DESTINATION, or bring the dumps that are there back.

    python dumps.py copy|fetch        (in the folder of the dumps, in MLflow's image)

MLflow's own classes reach the store, so that any address does that can hold artifacts, with the same keys. Nothing is
deleted there: a lifecycle rule of the bucket says how long dumps are kept, and the keys need no right to delete them.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

#: Names that sort by time: backup.yaml.
NAME = re.compile(r"mlflow-\d{8}T\d{6}Z\.dump", re.ASCII)

#: How many dumps are fetched, the newest: as many nights as the volume keeps them.
NEWEST = 14


def destination() -> str:
    """Return where the dumps go. Raises SystemExit where that is no address, or one that MLflow's users can read."""
    dumps = os.environ.get("DUMPS_DESTINATION", "").rstrip("/")
    artifacts = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "").rstrip("/")
    told = f"error: DUMPS_DESTINATION is {dumps!r}"
    if "://" not in dumps:
        sys.exit(f"{told} in settings.env: an address such as s3://BUCKET/PATH is needed")
    if f"{dumps}/".startswith(f"{artifacts}/"):
        sys.exit(f"{told}, below MLFLOW_ARTIFACTS_DESTINATION, where MLflow's users read and write")
    return dumps


def sizes(store: ArtifactRepository) -> dict[str, int]:
    """Return the size in bytes of each dump in the store, by its name."""
    return {file.path: file.file_size for file in store.list_artifacts() if NAME.fullmatch(file.path)}


def copy(store: ArtifactRepository) -> None:
    """Copy the newest dump of this folder. Raises SystemExit where there is none, or another arrives."""
    found = sorted(path for path in Path().iterdir() if NAME.fullmatch(path.name))
    if not found:
        sys.exit("error: there is no dump to copy")
    newest = found[-1]
    store.log_artifact(str(newest))
    wanted = newest.stat().st_size
    if sizes(store).get(newest.name) != wanted:
        sys.exit(f"error: {newest} has {wanted} bytes here and {sizes(store).get(newest.name)} there")
    print(f"copied: {newest}, {wanted} bytes")


def fetch(store: ArtifactRepository) -> None:
    """Bring back the NEWEST dumps that are not here, each whole or not at all. Raises SystemExit if there is none."""
    found = sorted(sizes(store))[-NEWEST:]
    if not found:
        sys.exit("error: there is no dump to fetch")
    for name in found:
        if not Path(name).exists():
            Path(".fetched").mkdir(exist_ok=True)
            Path(store.download_artifacts(name, dst_path=".fetched")).replace(name)
            print(f"fetched: {name}")
    print(f"newest: {found[-1]}")


if __name__ == "__main__":
    {"copy": copy, "fetch": fetch}[sys.argv[1]](get_artifact_repository(destination()))
