"""Where the table should be and is not: said before DVC runs, with the setting and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec
import pytest
import table_cases
import yaml
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.retraining import sources


def settings(path: str, **data: Any) -> Params:
    return Params.model_construct(data=table_cases.settings(path, **data), feature_store=None)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    stages("${data.path}")


def stages(dep: str, **more: Any) -> None:
    prepare = {"cmd": "prepare", "deps": [dep, "data/appended.json"], "outs": ["data/prepared/train.parquet"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": prepare, **more}}))


@pytest.mark.parametrize("path", ["data/raw", "data/raw.csv", "data/raw/"])
def test_a_table_that_nobody_has_is_named_with_what_to_do(path: str) -> None:
    name = path.rstrip("/")
    said = rf"data\.path is '{path}': it is not here, .* no {re.escape(name)}\.dvc.*dvc add"
    with pytest.raises(ProjectError, match=said):
        sources.require(settings(path))


@pytest.mark.parametrize("made", ["data/raw", "data/raw.dvc", "data.dvc"])
def test_a_table_that_is_here_or_that_dvc_gets_is_right(made: str) -> None:
    Path(made).touch()
    sources.require(settings("data/raw"))


@pytest.mark.parametrize("out", ["data/raw.csv", {"data/raw.csv": {"cache": False}}, "${data.path}"])
def test_a_table_that_a_stage_makes_is_right(out: Any) -> None:
    stages("${data.path}", fetch={"cmd": "fetch", "outs": [out]})
    sources.require(settings("data/raw.csv"))


def test_a_database_is_not_looked_for() -> None:
    sources.require(settings("data/none.db", query="select 1"))


def test_a_pattern_needs_a_folder_among_the_dependencies() -> None:
    with pytest.raises(ProjectError, match=r"is 'data/raw/2026-\*\.parquet', .*: write data/raw in place of \$\{data"):
        sources.require(settings("data/raw/2026-*.parquet"))
    stages("data/raw")
    sources.require(settings("data/raw/2026-*.parquet"))


def test_object_storage_is_asked() -> None:
    fsspec.filesystem("memory").pipe_file("/here/raw/a.parquet", b"")
    sources.require(settings("memory://here/raw"))
    with pytest.raises(ProjectError, match=r"data\.path is 'memory://here/none': there is no such file or folder"):
        sources.require(settings("memory://here/none"))


def test_the_package_of_a_cloud_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProjectError, match=r"data\.path is 's3://bucket/raw', .* dvc-s3: add it to requirements/pipe"):
        sources.require(settings("s3://bucket/raw"))
