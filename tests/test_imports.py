"""Which sub-package of gitops may import which (pyproject.toml, tool.importlinter), and what runs on Python alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from projects import ROOT

SOURCE = ROOT / "{{cookiecutter.project_slug}}/src"

#: What runs before any environment is there: `make setup`, `make github`, and the line of `make test`; and what runs
#: where a token can write, or an image is signed, and nothing is installed.
BARE = (
    "gitops.project",
    "gitops.reporting.comment",
    "gitops.retraining.propose",
    "gitops.integrations.propose_locks",
    "gitops.deployment.sign",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of both packages, under names that can be imported."""
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / "gitops", tmp_path / "gitops", ignore=leave_out)
    shutil.copytree(SOURCE / "{{cookiecutter.package_name}}", tmp_path / "project_package", ignore=leave_out)
    return tmp_path


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).with_name("lint-imports"), ROOT / "pyproject.toml"]
    command += ["--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=source, env={"PYTHONPATH": str(source)}, capture_output=True, text=True)


def test_each_import_goes_the_way_that_the_contracts_allow(source: Path) -> None:
    done = lint(source)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("gitops/core/artifacts.py", "from gitops.retraining import pipeline"),
        ("gitops/monitoring/monitor.py", "def late() -> None:\n    from gitops.tuning import tune"),
        ("gitops/owner.py", "import project_package.features"),
        ("gitops/project/version.py", "from gitops.core import artifacts"),
        ("gitops/registry/trace.py", "from gitops.gate import gate"),
        ("gitops/tuning/tune.py", "from gitops.tabular import table"),
        ("project_package/train.py", "from gitops.releases import history"),
        ("gitops/another/module.py", "one = 1"),
    ],
)
def test_an_import_the_other_way_is_found(source: Path, module: str, statement: str) -> None:
    """Also a late one, and a sub-package that no contract names."""
    path = source / module
    path.parent.mkdir(exist_ok=True)
    (path.parent / "__init__.py").touch()
    with path.open("a") as file:
        file.write(f"\n{statement}\n")
    done = lint(source)
    assert done.returncode == 1 and module[: -len(".py")].replace("/", ".").partition(".module")[0] in done.stdout


def test_what_runs_before_anything_is_installed_needs_the_standard_library_alone(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the modules are imported: what a function imports late is for those who have it."""
    monkeypatch.syspath_prepend(source)
    graph = grimp.build_graph(
        "gitops", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    waiting = [name for name in graph.modules if name.startswith(BARE)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.find_modules_directly_imported_by(name)
            waiting += [name.rpartition(".")[0]] if "." in name else []
    outside = {name.partition(".")[0] for name in found} - {"gitops", *sys.stdlib_module_names}
    assert outside == {"pandas", "pyarrow"}  # late, in core/artifacts.py
    modules = [f"import {name}" for name in graph.modules if name.startswith(BARE)]
    command = [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {'; '.join(modules)}"]
    subprocess.run(command, check=True)


def drawn(number: int) -> set[tuple[str, str]]:
    """Return the arrows of CONTRIBUTING.md's diagram of that number."""
    diagram = re.findall(r"```mermaid\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[number]
    lines = [line.split(" --> ") for line in diagram.splitlines() if " --> " in line]
    return {(start.strip(), end) for start, ends in lines for end in ends.split(" & ")}


def test_contributing_draws_the_imports_that_there_are(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(source)
    graph = grimp.build_graph("gitops", "project_package", exclude_type_checking_imports=True, cache_dir=None)
    rooms, modules = set(), set()
    for start in graph.modules:
        for end in graph.find_modules_directly_imported_by(start):
            package, _, module = start.partition(".")
            room = ".".join(end.split(".")[:2])
            if package == "project_package" and module:
                modules.add((module, room.removeprefix("project_package.")))
            elif (outer := module.partition(".")[0]) and f"gitops.{outer}" != room and room != "gitops.core":
                rooms.add((outer, room.removeprefix("gitops.")))
    assert drawn(0) == {edge for edge in rooms if edge[0] != "project"}
    assert drawn(1) == modules


def test_no_program_hides_a_module_of_the_standard_library() -> None:
    """Python looks into a program's own folder first, for the packages that the program imports, too."""
    programs = [path.stem for folder in ("benchmarks", "tools") for path in (ROOT / folder).glob("*.py")]
    assert len(programs) > 5
    assert not sys.stdlib_module_names & {*programs}
