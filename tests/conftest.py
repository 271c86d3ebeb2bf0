"""One copy of each supported combination for all tests, made with a Git identity of the tests' own."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from images import Buildah, available
from projects import COMBINATIONS, ROOT, generate, make, module_of

_no_skips = module_of(ROOT, "tests/gitops/no_skips.py")
pytest_runtest_makereport = _no_skips.pytest_runtest_makereport
pytest_make_collect_report = _no_skips.pytest_make_collect_report

#: They run in the environment of a generated project: test_gitops.py.
collect_ignore = ["gitops"]


#: Files whose tests take minutes: begun first, they do not keep the other workers waiting at the end.
LONG = (
    "test_workflow_runs",
    "test_end_to_end",
    "test_real",
    "test_owner_changes",
    "test_demo",
    "test_platform_changes",
    "test_platform_mlflow",
    "test_staleness",
    "test_serving_real",
    "test_serving_hostile",
    "test_machine_real",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which actionlint has run (test_workflows_lint.py), and what of gitops' own tests has not (test_real.py)."""
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for name, value in getattr(report, "user_properties", []):
            if name in ("actionlint", "gitops") and report.when == "call":
                terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session", autouse=True)
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests: Git's settings are these and no others."""
    settings = tmp_path_factory.mktemp("git") / "config"
    settings.write_text("[user]\n  name = Test\n  email = test@example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # workers share the cores, where threads that wait for each other are slow
        yield


@pytest.fixture(scope="session")
def projects(identity: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every supported combination by its id, generated once. Not to be changed by a test."""
    return {name: generate(tmp_path_factory.mktemp(name), **answers) for name, answers in COMBINATIONS.items()}


@pytest.fixture(params=COMBINATIONS)
def project(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    """Each supported combination in turn. Not to be changed by a test."""
    return projects[request.param]


@pytest.fixture(scope="session")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """A buildah whose storage goes with the tests."""
    folder = tmp_path_factory.mktemp("buildah")
    buildah, drivers = available(folder)
    yield buildah
    for driver in drivers:
        Buildah(folder / driver, driver)("rm", "--all")
        Buildah(folder / driver, driver)("rmi", "--all", "--force")


@pytest.fixture(scope="session")
def trained(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project after a short training. Not to be changed by a test."""
    project = generate(tmp_path_factory.mktemp("trained"))
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", "  epochs: 30", settings))
    make(project, "pipeline")
    return project


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program that makes environments and locks, imported anew for each test, with the modules that it uses."""
    monkeypatch.syspath_prepend(ROOT / "{{cookiecutter.project_slug}}/src")
    before = set(sys.modules)
    yield importlib.import_module("gitops.project.environments")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "gitops":
            del sys.modules[name]
