"""A model as MLflow keeps it: model.pt2 and schema.json, with the code that turns raw rows into its inputs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from gitops.core import code, params

MODEL_CODE = Path(__file__).with_name("mlflow_model.py")


def log(mlflow: Any, model: Path, schema: Path, archived: Path | None = None) -> str:
    """Log a model in the open run, with its schema and the code that encodes rows; return the logged model's id.

    `archived` is the folder of an unpacked model archive, whose own modules then replace the workspace's.
    """
    with tempfile.TemporaryDirectory(prefix="model-code-") as folder, tempfile.TemporaryDirectory() as copies:
        _copy_code(Path(folder), archived)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(MODEL_CODE),
            artifacts={"model": _plain_file(model, copies), "schema": _plain_file(schema, copies)},
            model_config={"package": params.package()},
            code_paths=[str(path) for path in sorted(Path(folder).iterdir())],
            pip_requirements=["torch", "pandas", "pyarrow"],
        )
    return str(logged.model_id)


def _copy_code(folder: Path, archived: Path | None) -> None:
    """Copy the packages' modules that mlflow_model.py imports into `folder`."""
    modules = (code.SOURCE / params.package() / "features.py", code.SOURCE / "gitops/tabular/arrow.py")
    sources = [(code.SOURCE, path) for module in modules for path in code.imported(module)]
    if archived is not None:  # only modules in packages: the archive also holds TorchServe's handler
        sources += [(archived, path) for path in archived.rglob("*/*.py")]
    for root, path in sources:
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _plain_file(path: Path, copies: str) -> str:
    """Return a path to the same file through no symbolic link: MLflow refuses those that leave their folder.

    DVC's `cache.type symlink` makes such links. MLflow names an artifact after its file, so a link is copied.
    """
    if not path.is_symlink():
        return str(path.resolve())
    return str(shutil.copyfile(path, Path(copies, path.name)))
