"""docs/reference-architecture.md of each combination names what there is: files, commands, tests, and the levels."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from projects import ROOT, tracked

#: The parts of the reference's level 2, in the page's order.
PARTS = (
    "orchestrated experiments",
    "source code and repository",
    "CI: build, test, package",
    "artifacts",
    "CD: deployment of the model",
    "pipeline deployment",
    "automated pipeline",
    "metadata store",
    "model registry",
    "prediction service",
    "continuous monitoring",
    "automated trigger",
    "automated retraining",
    "feature store",
)

#: What has a slash and is no file of main.
OTHER = {"tests/", "tests/...", "env/production"}


@pytest.fixture
def page(project: Path) -> str:
    return (project / "docs/reference-architecture.md").read_text(encoding="utf-8")


@pytest.fixture
def maturity(environments: ModuleType) -> ModuleType:
    """The module of the template; `environments` is why it can be imported, and is forgotten after the test."""
    return importlib.import_module("gitops.debt.maturity")


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def targets(project: Path) -> set[str]:
    phony = re.search(r"^\.PHONY: (.*) FORCE$", (project / "Makefile").read_text(), re.MULTILINE)
    assert phony
    return {*phony[1].split()}


def defined(path: str) -> set[str]:
    """Return the names of a test module's functions."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_part_has_files_commands_and_tests(project: Path, page: str) -> None:
    files, commands, found = {*tracked(project)}, targets(project), rows(page, "Each part")
    assert tuple(part for part, *_ in found) == PARTS
    for part, where, command, held in found:
        absent = part == "feature store" and not (project / "k8s/components/feature-store").exists()
        assert bool(named(where)) is bool(named(command)) is not absent, part
        assert {*named(where)} <= files
        assert {name.removeprefix("make ") for name in named(command)} <= commands
        assert named(held), part
        for test in named(held):
            path, _, function = test.partition("::")
            names = defined(path)
            assert function in names if function else any(name.startswith("test_") for name in names), test


def test_whatever_else_is_named_is_there(project: Path, page: str) -> None:
    """Commands and paths, outside the table and in the picture too."""
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    commands = {*re.findall(r"\bmake ([a-z-]+)", page)}
    assert len(commands) > 15
    assert commands <= targets(project)
    files = tracked(project)
    paths = {name for name in named(prose) if "/" in name} - OTHER
    assert len(paths) > 20
    assert {path for path in paths if path not in files and not (ROOT / path.partition("::")[0]).is_file()} == set()
    names = {Path(file).name for file in files}
    assert {*re.findall(r"[\w.-]+\.yaml\b", page)} <= names


def test_the_picture_has_each_part(page: str) -> None:
    picture = page.partition("```mermaid\n")[2].partition("```")[0]
    for part in PARTS:
        word = part.partition(":")[0].removesuffix(" and repository")
        shown = word in picture or word == "automated retraining"  # the automated pipeline, by its trigger
        assert shown is (word != "feature store" or "`make materialize`" in page), part


def test_the_levels_are_those_that_are_computed(project: Path, page: str, maturity: ModuleType) -> None:
    computed = [
        [
            str(level.number),
            f"{one.text}, optional" if one.optional else one.text,
            "yes" if one.found else "no" if one.known else "not known",
        ]
        for level in maturity.levels(project)
        for one in level.practices
    ]
    assert rows(page, "Levels of maturity") == computed


def test_a_fresh_project_lacks_a_request_log_alone(project: Path, maturity: ModuleType) -> None:
    """As the page says: everything else that counts is there."""
    lacking = [
        one.text for level in maturity.levels(project) for one in level.practices if not one.found and not one.optional
    ]
    assert lacking == ["a request log to monitor"]


def test_the_page_names_the_command_that_computes_the_level(project: Path, page: str) -> None:
    """`make debt` runs the score, and the score's command prints the level (tests/gitops/test_debt.py)."""
    levels = page.partition("\n## Levels of maturity\n")[2]
    assert "`make debt` computes the level" in levels
    assert "\n\t$(RUN).debt.score $(ARGS)\n" in (project / "Makefile").read_text(encoding="utf-8")
    (module,) = re.findall(r"python -m ([\w.]+)", levels)
    assert f"src/{module.replace('.', '/')}.py" in tracked(project)
