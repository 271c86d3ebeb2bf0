"""dvc.yaml lists the modules that each stage imports: a change of one that it lacks would rebuild nothing."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import ROOT

from gitops.core import code

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
FOLDERS = {f"${{{name}}}": folder for variables in PIPELINE["vars"] for name, folder in variables.items()}


@pytest.mark.parametrize("stage", PIPELINE["stages"])
def test_every_module_that_a_stage_imports_is_among_its_deps(stage: str) -> None:
    listed = set()
    for dep in PIPELINE["stages"][stage]["deps"]:
        folder, _, name = dep.partition("/")
        if folder in FOLDERS:
            listed.add(ROOT / FOLDERS[folder] / name)
    missing = [path.relative_to(ROOT).as_posix() for path in code.computing(*listed) if path not in listed]
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {', '.join(missing)}"
