"""dvc.yaml names exactly the code on which each stage depends, and files that are there or that a stage makes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from defaults import ROOT
from gitops.core import code, params
from gitops.serving import package

OWN = code.SOURCE / params.package()
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, Any] = PIPELINE["stages"]

#: Modules of the project that a stage reaches through owner.py, by name and not by an import.
THROUGH_OWNER = {"validate_data": ["checks.py"], "validate_model": ["checks.py"], "package": ["features.py"]}

#: Packages that these environments lack, so that code which runs there must not import them at its top.
LACKING = {"validate": {"torch", "mlflow", "dvc"}, "features": {"torch", "mlflow", "dvc"}}


def listed(stage: str) -> set[Path]:
    """Return the files of src/ that a stage depends on."""
    folders = {f"${{{name}}}": path for variables in PIPELINE["vars"] for name, path in variables.items()}
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith(tuple(folders))]
    return {ROOT / folders[dep.partition("/")[0]] / dep.partition("/")[2] for dep in deps}


def roots(stage: str) -> list[Path]:
    """Return the module that a stage runs, and what it reaches by name."""
    module = STAGES[stage]["cmd"].split()[2]
    return [code.SOURCE / f"{module.replace('.', '/')}.py", *(OWN / name for name in THROUGH_OWNER.get(stage, []))]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_computes_and_on_no_other(stage: str) -> None:
    expected = {*code.computing(*roots(stage))}
    if stage == "package":  # what goes into the archive is its result, packages' __init__ files too
        expected |= {*code.imported(package.HANDLER, OWN / "features.py")}
    assert listed(stage) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_a_module_in_one_of_the_environments(stage: str) -> None:
    program, flag, _, *_ = STAGES[stage]["cmd"].split()
    assert program.split("/")[1] in {path.stem for path in (ROOT / "requirements").glob("*.in")}
    assert flag == "-m" and roots(stage)[0].is_file()


def test_a_stage_depends_on_files_that_are_there_or_that_another_makes() -> None:
    made = {out for stage in STAGES.values() for out in [*stage["outs"], *stage.get("metrics", [])]}
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            known = dep.startswith("${") or dep in made or (ROOT / dep).exists() or (ROOT / f"{dep}.dvc").exists()
            assert known, f"{name} depends on {dep}, which nothing makes"


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if stage["cmd"].split("/")[1] in LACKING])
def test_a_stage_imports_nothing_that_its_environment_lacks(stage: str) -> None:
    for path in code.imported(*roots(stage)):
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        names = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in statements if isinstance(node, ast.ImportFrom) and not node.level}
        packages = {name.partition(".")[0] for name in names}
        assert not packages & LACKING[STAGES[stage]["cmd"].split("/")[1]], path
