"""Shared by the tests of the registry: a job whose archives are real and whose trainings are runs in a real MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError, digest
from gitops.integrations import mlflow_run, tracking
from gitops.registry import registry
from releases import Job

ARCHIVE = Path("package/toy.mar")


class Registering(Job):
    """A clone that trains into MLflow and registers there. `remote` stands for DVC's: archives under their md5."""

    def __init__(self, origin: Path, path: Path, remote: Path) -> None:
        super().__init__(origin, path)
        self.remote = remote
        remote.mkdir(exist_ok=True)

    def train(self, model: str, handler: str = "", logged: bool = True) -> None:
        """Write what the pipeline would; without `logged` as from DVC's run cache: this MLflow has no run of it."""
        super().train(model, handler)
        parts = {"model.pt2": model, "schema.json": "{}", "breast_cancer/features.py": "", "handler.py": handler}
        with zipfile.ZipFile(self.path / ARCHIVE, "w") as packed:
            for name, text in parts.items():
                packed.writestr(zipfile.ZipInfo(name), text)
        shutil.copy(self.path / ARCHIVE, self.remote / digest(self.path / ARCHIVE, "md5"))
        self.write("model/run.json", json.dumps({"run_id": self._log() if logged else "e" * 32}))

    def _log(self) -> str:
        with contextlib.chdir(self.path), mlflow_run.start(params.load(), Path(".checkpoints/run")) as run:
            run.log_model()
            os.remove(".checkpoints/run")
            return str(run.run_id)

    def fetch(self, md5: str) -> Path:
        """Stand in for dvc.fetch."""
        if not (self.remote / md5).exists():
            raise ProjectError(f"object {md5} is neither in DVC's cache nor in its remote")
        return self.remote / md5

    def sync(self) -> Any:
        with contextlib.chdir(self.path):
            return registry.sync(params.load())

    def client(self) -> Any:
        """MLflow's client, for what a user of it sees."""
        return tracking.load().MlflowClient()

    def seen(self, name: str = "toy") -> tuple[dict[int, dict[str, str]], dict[str, int]]:
        """Return versions with their tags, and aliases, as MLflow has them."""
        found = self.client().search_model_versions(f"name='{name}'")
        aliases = self.client().get_registered_model(name).aliases
        versions = {int(one.version): dict(one.tags) for one in found}
        return dict(sorted(versions.items())), {alias: int(version) for alias, version in aliases.items()}

    def champion(self) -> bytes:
        """Return the bytes of the model that `champion` names."""
        version = self.client().get_model_version_by_alias("toy", "champion")
        folder = self.client().get_logged_model(version.source.removeprefix("models:/")).artifact_location
        mlflow = tracking.load()
        return Path(mlflow.artifacts.download_artifacts(f"{folder}/artifacts/{artifacts.MODEL.name}")).read_bytes()
