"""Tests of the package `gitops`, run in the environment of a generated project, the default one (run.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from defaults import ROOT as ROOT
from defaults import complete
from no_skips import pytest_make_collect_report as pytest_make_collect_report
from no_skips import pytest_runtest_makereport as pytest_runtest_makereport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commenting import Bench
    from monitoring import World
    from releases import Job

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
    "test_tune_workers",
    "test_github_keys",
    "test_github_owners",
    "test_github_protection",
    "test_github_setup",
)

#: Settings of a binary task: tests do not depend on what the project's own params.yaml says.
SETTINGS: dict[str, Any] = complete(
    {
        "data": {"path": "data/raw.csv", "target": "diagnosis", "task": "binary"},
        "gate": {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.9}, "guardrail_metrics": {"brier": 0.02}},
        "package": {"model_name": "tumour"},
    }
)


#: Feast has an environment in projects with a feature store alone, where the template's test_feature_store_real.py runs
#: these tests there.
collect_ignore = [] if (ROOT / "requirements/features.txt").exists() else ["test_feature_store.py"]


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
