"""The workspace as a release candidate: what lies in it, and whether that comes from a commit."""

from __future__ import annotations

from pathlib import Path

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest, read_json
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.integrations import dvc, git, kustomize
from gitops.releases.record import Candidate, File, Model, Score, Training
from gitops.tabular import decision, parts

#: Files that may differ from the commit: `dvc repro` writes dvc.lock, and a job that may not commit to main leaves it
#: changed. dvc.stale() checks its contents.
DERIVED = {"dvc.lock"}


def candidate(settings: Params, image: str | None = None) -> Candidate:
    """Describe the workspace's model. Raises ProjectError naming a missing file, or stages that are out of date.

    `image` is the reference of the image that holds it, kustomize.default_image by default.
    """
    archive = artifacts.PACKAGE / f"{settings.package.model_name}.mar"
    for path in (artifacts.MODEL, archive, artifacts.PREDICTIONS):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
    schema, evaluated = decision.schema(), read_json(artifacts.METRICS, "make pipeline")
    sha256 = digest(artifacts.MODEL)
    better = settings.better  # recorded, because what reads a record need not have the metrics
    model = Model(
        name=settings.package.model_name, version=sha256[:12], sha256=sha256, md5=digest(artifacts.MODEL, "md5")
    )
    found = Candidate(
        commit=git.run("rev-parse", "HEAD"),
        model=model,
        package=_file(archive),
        predictions=_file(artifacts.PREDICTIONS),
        test_md5=evaluated["test_md5"],
        data=File(path=settings.data.path, md5=artifacts.tracked_md5(Path(settings.data.path))),
        appended=_file(parts.FOLDER) if parts.version(settings.data) else None,
        rows=schema["rows"],
        columns={feature["name"]: feature["dtype"] for feature in schema["features"]},
        params=settings.model_dump(mode="json"),
        metrics={
            name: Score.model_validate({**score, "better": better.get(name)})
            for name, score in evaluated["metrics"].items()
        },
        threshold=schema["target"].get("threshold"),
        mlflow_run_id=read_json(artifacts.RUN, "make pipeline").get("run_id"),
        image=image or kustomize.default_image(model.version),
    )
    if stale := dvc.stale():
        raise ProjectError(
            f"{', '.join(stale)}: out of date, so the model does not come from this commit; run `make pipeline`"
        )
    return found


def data_md5(data: Data) -> str:
    """Return `Candidate.data_md5` of the table in the workspace. Raises FileNotFoundError where there is none."""
    return parts.md5(data)


def verified(candidate: Candidate) -> Candidate:
    """Return the candidate with where it was trained. Raises ProjectError unless `make verify` computed all this.

    It did where dvc.lock is the one that it has left: `candidate` has seen that nothing differs from that. So a commit
    that changes documents or manifests alone need not be verified again in the same workspace.
    """
    found = artifacts.read_json(artifacts.VERIFICATION, "make verify")
    here = (candidate.model.sha256, digest(dvc.LOCK))
    if (found.get("model_sha256"), found.get("lock_sha256")) != here:
        raise ProjectError(f"{artifacts.VERIFICATION} is about other results than those here: run `make verify` again")
    training = Training(trained_on=found["trained_on"], inputs=found["training_inputs"])
    return candidate.model_copy(update={"training": training})


def require_committed(purpose: str) -> None:
    """Raise ProjectError where files differ from the commit that is checked out, but for those of the pipeline."""
    if changed := uncommitted():
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ProjectError(f"{purpose}, and these files differ from it: {', '.join(changed[:5])}{more}")


def require_nothing_made(allowed: str) -> None:
    """Raise ProjectError where the commit holds files that .gitignore leaves out, but for those below `allowed`.

    They are what runs make: results, DVC's cache and local settings, Python's compiled modules, which it prefers to the
    source. Found in a checkout, they would be taken for this machine's own.
    """
    listed = git.run("ls-files", "-z", "--cached", "--ignored", "--exclude-per-directory=.gitignore").split("\0")
    if made := [path for path in listed if path and not path.startswith(allowed)]:
        raise ProjectError(
            f"the commit holds {len(made)} file(s) that .gitignore leaves out, such as {made[0]}: what a run makes is "
            f"no part of a commit; `git rm --cached {made[0]}`"
        )


def uncommitted() -> list[str]:
    """Return the files that differ from HEAD, except those that the pipeline itself changes."""
    return [path for path in git.changes() if path not in DERIVED]


def _file(path: Path) -> File:
    return File(path=path.as_posix(), md5=artifacts.tracked_md5(path))
