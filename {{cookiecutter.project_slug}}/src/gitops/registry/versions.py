"""The registered model in MLflow: versions with tags, aliases, and the logged models that versions refer to."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitops.core.artifacts import MODEL, SCHEMA, ProjectError, digest
from gitops.core.params import Params, flatten
from gitops.integrations import dvc, logged_model, mlflow_server, tracking
from gitops.releases.record import Candidate

#: Tag of the registered model: the first commit of the repository that it belongs to.
PROJECT = "project"

#: Tag of a run that logs a model trained elsewhere.
LOGGED = "registered_model_sha256"

#: Characters of a version's description, a column of MLflow's database. A tag may have 100,000.
DESCRIPTION = 5000


class Versions:
    """One registered model. Methods raise MLflow's exceptions: use them inside `tracking.errors`."""

    def __init__(self, settings: Params) -> None:
        self._mlflow = tracking.load()
        self._client = self._mlflow.MlflowClient()
        self._settings = settings
        self.name = settings.package.model_name

    def claim(self, project: str) -> None:
        """Create the registered model for `project` if missing. Raises ProjectError if another project owns it."""
        tracking.connect(self._settings)
        # A search: to get a model that does not exist may be forbidden.
        found = self._client.search_registered_models(f"name = '{self.name}'")
        if not found:
            self._client.create_registered_model(self.name, tags={PROJECT: project})
            return
        owner = found[0].tags.get(PROJECT)
        if owner is None:
            self._client.set_registered_model_tag(self.name, PROJECT, project)
        elif owner != project:
            raise ProjectError(
                f"the registered model {self.name} in MLflow at {tracking.address()} belongs to the project whose "
                f"first commit is {owner[:12]}, and this repository's is {project[:12]}: choose another "
                f"package.model_name in params.yaml, or, if it is the same project, delete that model's tag {PROJECT!r}"
            )

    def all(self) -> dict[int, dict[str, str]]:
        """Return the tags of each version by its number, the lowest first."""
        found = self._mlflow.search_model_versions(filter_string=f"name='{self.name}'")
        return {int(one.version): dict(one.tags) for one in sorted(found, key=lambda one: int(one.version))}

    def create(self, run: str, model: str, tags: dict[str, str], description: str | None) -> int:
        """Create a version of a logged model, with all of this in one step, and return its number."""
        made = self._client.create_model_version(
            self.name, source=f"models:/{model}", run_id=run, model_id=model, tags=tags, description=description
        )
        return int(made.version)

    def describe(self, version: int, description: str) -> None:
        """Set what MLflow shows of a version, as Markdown of at most DESCRIPTION characters."""
        self._client.update_model_version(self.name, str(version), description)

    def tag(self, version: int, tags: dict[str, str]) -> None:
        """Set tags of a version, in the order given."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, str(version), key, value)

    def aliases(self) -> dict[str, int]:
        """Return the version of each alias."""
        found = self._client.get_registered_model(self.name).aliases
        return {alias: int(version) for alias, version in found.items()}

    def set_alias(self, alias: str, version: int | None) -> None:
        """Point `alias` at a version, or remove it where that is None; writes only what changes."""
        present = self.aliases().get(alias)
        if version is None and present is not None:
            self._client.delete_registered_model_alias(self.name, alias)
        elif version is not None and version != present:
            self._client.set_registered_model_alias(self.name, alias, str(version))

    def logged(self, candidate: Candidate) -> tuple[str, str] | None:
        """Return the ids of the run and of the logged model with these very bytes; the run is training's or `log`'s.

        None where there is none, or where the stored file has another sha256.
        """
        runs = [candidate.mlflow_run_id] if candidate.mlflow_run_id else []
        sha256 = candidate.model.sha256
        again = self._mlflow.search_runs(filter_string=f"tags.{LOGGED} = '{sha256}'", output_format="list")
        for run in [*runs, *(found.info.run_id for found in again)]:
            for model in self._models(run):
                if self._sha256(model) == sha256:
                    return run, model
        return None

    def log(self, candidate: Candidate, folder: Path) -> tuple[str, str]:
        """Log the model of an archive unpacked in `folder`, in a new run naming the training run; return both ids."""
        trained = candidate.mlflow_run_id or "none"
        tags = {LOGGED: candidate.model.sha256, "trained_in_run": trained, "data_md5": candidate.data_md5}
        with self._mlflow.start_run(tags=tags | {"git_commit": candidate.commit}) as run:
            chosen = {name: candidate.params.get(name, {}) for name in ("data", "model", "train")}
            self._mlflow.log_params(flatten(chosen))
            self._mlflow.log_metrics({f"test_{name}": score.value for name, score in candidate.metrics.items()})
            logged = logged_model.log(self._mlflow, folder / MODEL.name, folder / SCHEMA.name, archived=folder)
            return run.info.run_id, logged

    def _models(self, run: str) -> list[str]:
        """Return the ids of a run's logged models; none where this MLflow does not have the run."""
        try:
            found = self._client.get_run(run)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code not in mlflow_server.NO_SUCH_RUN:
                raise
            return []
        return [output.model_id for output in found.outputs.model_outputs] if found.outputs else []

    def _sha256(self, model: str) -> str | None:
        """Return the sha256 of a logged model's model file, or None where that cannot be downloaded."""
        with tempfile.TemporaryDirectory(prefix="registry-") as folder:
            try:
                uri = f"{self._client.get_logged_model(model).artifact_location}/artifacts/{MODEL.name}"
                return digest(Path(self._mlflow.artifacts.download_artifacts(uri, dst_path=folder)))
            except (self._mlflow.exceptions.MlflowException, OSError):
                return None


@contextmanager
def unpacked(candidate: Candidate) -> Iterator[Path]:
    """Yield a folder with the contents of the model's archive, from the workspace or else from DVC.

    Raises ProjectError where there is no archive, or where it holds another model.
    """
    archive = Path(candidate.package.path)
    if not archive.exists() or digest(archive, "md5") != candidate.package.md5:
        archive = dvc.fetch(candidate.package.md5)
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        try:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
            found = digest(Path(folder, MODEL.name))
        except (zipfile.BadZipFile, OSError) as error:
            raise ProjectError(f"the archive {candidate.package.md5} cannot be read: {error}") from error
        if found != candidate.model.sha256:
            raise ProjectError(f"the archive {candidate.package.md5} holds another model, {found[:12]}")
        yield Path(folder)
