"""dvc.yaml names what each stage really reads: an edit that it misses would rebuild nothing."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PACKAGE, ROOT

SOURCE = ROOT / "src" / PACKAGE
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def imported(module: str) -> set[str]:
    """Return the modules of the package that `module` imports, itself and late imports included."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                waiting += [node.module] if node.module else [alias.name for alias in node.names]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_runs(stage: str) -> None:
    listed = {Path(dep).stem for dep in STAGES[stage]["deps"] if dep.startswith("${code}")}
    assert imported(stage) <= listed
    for dep in listed:
        assert (SOURCE / f"{dep}.py").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_module_in_one_of_the_environments(stage: str) -> None:
    program, flag, module = STAGES[stage]["cmd"].split()
    assert program.split("/")[1] in {path.stem for path in (ROOT / "requirements").glob("*.in")}
    assert (flag, module) == ("-m", f"{PACKAGE}.{stage}")


def test_a_stage_depends_on_files_that_another_makes() -> None:
    made = {out for stage in STAGES.values() for out in [*stage["outs"], *stage.get("metrics", [])]}
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            known = dep.startswith("${") or dep in made or (ROOT / dep).exists()
            assert known, f"{name} depends on {dep}, which nothing makes"


def test_the_validate_environment_needs_no_package_of_the_others() -> None:
    for stage in ("validate_data", "validate_model"):
        for module in imported(stage):
            text = (SOURCE / f"{module}.py").read_text(encoding="utf-8")
            names = {
                alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names
            }
            assert not names & {"torch", "mlflow", "dvc"}, f"{module} is imported by {stage}"
