"""Tests import the package as `project`, so that they need no change when it is renamed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commenting import Bench
    from monitoring import World
    from releases import Job

ROOT = Path(__file__).resolve().parents[1]
INIT = next((ROOT / "src").glob("*/__init__.py"))

#: Files that wait for servers and other processes: begun first, they do not keep the other workers waiting at the end.
SLOW = (
    "test_feature_store",
    "test_monitor",
    "test_serving",
    "test_manifests",
    "test_promote",
    "test_races",
    "test_registry",
    "test_validation",
    "test_training",
    "test_tune_workers",
    "test_github_setup",
)

#: The package's real name, for tests that start a command of it.
PACKAGE = INIT.parent.name

#: Settings of a binary task: tests do not depend on what the project's own params.yaml says.
SETTINGS: dict[str, Any] = {
    "data": {"path": "data/raw.csv", "target": "diagnosis", "task": "binary"},
    "train": {"epochs": 200},
    "gate": {"metric": "roc_auc", "thresholds": {"roc_auc": 0.9}, "guards": {"brier": 0.02}},
    "package": {"model_name": "tumour"},
}

spec = importlib.util.spec_from_file_location("project", INIT, submodule_search_locations=[str(INIT.parent)])
assert spec is not None and spec.loader is not None
sys.modules["project"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["project"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in SLOW)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with a commit on main."""
    from releases import make_origin

    return make_origin(tmp_path)


@pytest.fixture
def job(origin: Path, tmp_path: Path) -> Job:
    """A clone in which a deploy job runs."""
    from releases import Job

    return Job(origin, tmp_path / "job")


@pytest.fixture
def other(origin: Path, tmp_path: Path) -> Job:
    """A second clone, for a job at the same time."""
    from releases import Job

    return Job(origin, tmp_path / "other")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Bench]:
    """A run of `make comment`: pull request 12 is open, CI has ended well, and there is no CML."""
    from commenting import prepared

    with prepared(tmp_path, monkeypatch, capsys) as made:
        yield made


@pytest.fixture(params=["api", "cml"])
def either(bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The same without CML and, where one is on PATH, with it."""
    from commenting import PATH, REAL_CML

    if request.param == "cml":
        if not REAL_CML:
            pytest.skip("no cml on PATH")
        monkeypatch.setenv("PATH", PATH)
    return bench


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A release for `make monitor`, no request yet; Deepchecks is left out, its step finds nothing."""
    from monitoring import prepared

    return prepared(tmp_path, monkeypatch)
