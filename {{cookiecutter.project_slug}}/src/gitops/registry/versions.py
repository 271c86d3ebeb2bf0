"""The registered model in MLflow: versions with tags, aliases, and the logged models that versions stand on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitops.core.artifacts import MODEL, ProjectError, digest
from gitops.core.params import Params
from gitops.integrations import tracking
from gitops.releases.release import Candidate

#: Tag of the registered model: whose it is.
PROJECT = "project"

#: Tag of a run that logs a model which was trained elsewhere.
LOGGED = "registered_model_sha256"


@contextmanager
def reached() -> Iterator[None]:
    """Turn what MLflow raises in the block into a ProjectError that names its address and holds no password."""
    # Seven tries, as by default, take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        shown = str(error).replace(os.environ.get("MLFLOW_TRACKING_URI") or tracking.DEFAULT_URI, tracking.address())
        raise ProjectError(f"MLflow at {tracking.address()} did not do it: {shown}") from error


class Versions:
    """One registered model. Every method raises what MLflow raises: use it inside `reached`."""

    def __init__(self, settings: Params) -> None:
        self._mlflow = tracking.load()
        self._client = self._mlflow.MlflowClient()
        self._settings = settings
        self.name = settings.package.model_name

    def claim(self, project: str) -> None:
        """Create the registered model for `project` where there is none. Raises ProjectError if another one has it."""
        tracking.connect(self._settings)
        found = self._client.search_registered_models(
            f"name = '{self.name}'"
        )  # where nothing is, a get may be forbidden
        if not found:
            self._client.create_registered_model(self.name, tags={PROJECT: project})
            return
        owner = found[0].tags.get(PROJECT)
        if owner is None:
            self._client.set_registered_model_tag(self.name, PROJECT, project)
        elif owner != project:
            raise ProjectError(
                f"the registered model {self.name} in MLflow at {tracking.address()} belongs to the project whose "
                f"first commit is {owner[:12]}, here it is {project[:12]}: give package.model_name in params.yaml "
                f"a name of its own, or, if it is the same project all the same, delete that model's tag {PROJECT!r}"
            )

    def all(self) -> dict[int, dict[str, str]]:
        """Return the tags of each version by its number, the lowest first."""
        found = self._mlflow.search_model_versions(filter_string=f"name='{self.name}'")
        return {int(one.version): dict(one.tags) for one in sorted(found, key=lambda one: int(one.version))}

    def create(self, run: str, model: str, tags: dict[str, str]) -> int:
        """Make a version of a logged model, tags and all in one step, and return its number."""
        made = self._client.create_model_version(
            self.name, source=f"models:/{model}", run_id=run, model_id=model, tags=tags
        )
        return int(made.version)

    def tag(self, version: int, tags: dict[str, str]) -> None:
        """Set tags of a version, in their order."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, str(version), key, value)

    def aliases(self) -> dict[str, int]:
        """Return the version that each alias names."""
        found = self._client.get_registered_model(self.name).aliases
        return {alias: int(version) for alias, version in found.items()}

    def point(self, alias: str, version: int | None) -> None:
        """Let `alias` name a version, or remove it; nothing is written where it is so already."""
        present = self.aliases().get(alias)
        if version is None and present is not None:
            self._client.delete_registered_model_alias(self.name, alias)
        elif version is not None and version != present:
            self._client.set_registered_model_alias(self.name, alias, str(version))

    def logged(self, candidate: Candidate) -> tuple[str, str] | None:
        """Return the run that logged this very model, and the logged model: the training run or one made by `log`.

        None where there is none, or where what lies there has another sha256.
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
        """Log the model of an archive unpacked in `folder` in a run that says where it was trained; return both ids."""
        trained = candidate.mlflow_run_id or "none"
        tags = {LOGGED: candidate.model.sha256, "trained_in_run": trained, "data_md5": candidate.data.md5}
        with self._mlflow.start_run(tags=tags | {"git_commit": candidate.commit}) as run:
            chosen = {name: candidate.params.get(name, {}) for name in ("data", "model", "train")}
            self._mlflow.log_params(tracking.flatten(chosen))
            self._mlflow.log_metrics({f"test_{name}": score.value for name, score in candidate.metrics.items()})
            logged = tracking.log_model(self._mlflow, folder / MODEL.name, folder / "schema.json", archived=folder)
            return run.info.run_id, logged

    def _models(self, run: str) -> list[str]:
        """Return the models that a run has logged; none where this MLflow does not know the run."""
        try:
            found = self._client.get_run(run)
        except self._mlflow.exceptions.MlflowException as error:
            # A server with accounts forbids a run that it does not have.
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"):
                raise
            return []
        return [output.model_id for output in found.outputs.model_outputs] if found.outputs else []

    def _sha256(self, model: str) -> str | None:
        """Return the sha256 of the model file of a logged model, or None where its files are not there or not whole."""
        with tempfile.TemporaryDirectory(prefix="registry-") as folder:
            try:
                uri = f"{self._client.get_logged_model(model).artifact_location}/artifacts/{MODEL.name}"
                return digest(Path(self._mlflow.artifacts.download_artifacts(uri, dst_path=folder)))
            except (self._mlflow.exceptions.MlflowException, OSError):
                return None
