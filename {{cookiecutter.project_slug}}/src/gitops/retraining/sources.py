"""Whether the table is where params.yaml says, asked before DVC, whose errors name neither the setting nor a remedy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import yaml

from gitops.core.addresses import locate, reached
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params

#: What a stage's dependency on the table is written as.
DEPENDENCY = "${data.path}"

#: DVC's packages for the clouds.
PACKAGES = {"s3": "dvc-s3", "gs": "dvc-gs", "gcs": "dvc-gs", "abfs": "dvc-azure", "azure": "dvc-azure"}


def require(settings: Params) -> None:
    """Raise ProjectError where the table of `data.path` is not here and nothing says where DVC gets it from, where
    DVC cannot depend on it, or where it is in object storage that cannot be reached.
    """
    data = settings.data
    if data.query is not None or settings.feature_store is not None:
        return
    if "*" in data.path:
        _refuse_pattern(data.path)
    elif "://" in data.path:
        _reach(data.path)
    elif not Path(data.path).exists() and not _made(Path(data.path)):
        raise ProjectError(
            f"data.path is {data.path!r}: it is not here, and there is no {Path(data.path).as_posix()}.dvc, by which "
            f"DVC would get it: put the table there and `dvc add {data.path}`, or correct data.path"
        )


def _made(path: Path) -> bool:
    """Tell whether a .dvc file or a stage has the path, or a folder around it, as its result."""
    around = [path, *path.parents]
    outs = [out for stage in _stages().values() for out in stage.get("outs") or []]
    made = {Path(next(iter(out)) if isinstance(out, dict) else out) for out in outs}
    made |= {path for out in outs if DEPENDENCY in out}
    return any(each in made or each.with_name(f"{each.name}.dvc").is_file() for each in around if each.name)


def _refuse_pattern(path: str) -> None:
    stages = [name for name, stage in _stages().items() if DEPENDENCY in (stage.get("deps") or [])]
    if stages:
        folder = path.partition("*")[0].rpartition("/")[0] or "data"
        raise ProjectError(
            f"data.path is {path!r}, a pattern, on which no stage of DVC's can depend: write {folder} in place of "
            f"{DEPENDENCY} among the deps of {', '.join(stages)} in dvc.yaml"
        )


def _reach(address: str) -> None:
    package = PACKAGES.get(address.partition("://")[0])
    if package and importlib.util.find_spec(package.replace("-", "_")) is None:
        raise ProjectError(
            f"data.path is {address!r}, on which DVC depends by its package {package}: add it to "
            "requirements/pipeline.in, and run `make lock`"
        )
    filesystem, path = locate("data.path", address)
    with reached("data.path", address):
        found = filesystem.exists(path)
    if not found:
        raise ProjectError(f"data.path is {address!r}: there is no such file or folder, or this machine may not see it")


def _stages() -> dict[str, dict[str, Any]]:
    content = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    stages: dict[str, dict[str, Any]] = content["stages"]
    return stages
