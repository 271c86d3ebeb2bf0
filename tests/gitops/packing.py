"""Repositories after the stage `evaluate`, with the tiny model, and projects whose code is not this one's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import tiny_model
from conftest import ROOT
from gitops.core.artifacts import DECISION, FEATURE_VIEW, MODEL, SCHEMA, TEST, write_json

#: From which probability of "yes" on the model says so.
THRESHOLD = 0.375

#: A derived feature as an owner adds it: in features.py, with its function in a module beside that.
MONTHS = "def months(age):\n    return age * 12\n"
DERIVED = 'from .ages import months  # noqa: E402\n\nDERIVED = {"months": Derived(("age",), months)}\n'


def evaluated(folder: Path, schema: dict[str, Any] = tiny_model.SCHEMA) -> Path:
    """Write a repository after `evaluate`, without code; return `folder`."""
    for name in (".venv", "serving"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", folder)
    for path in (MODEL, TEST):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    tiny_model.save(folder / MODEL, schema)
    write_json(folder / SCHEMA, schema)
    write_json(folder / DECISION, {"threshold": THRESHOLD, "metric": "f1", "value": 0.5})
    write_json(folder / FEATURE_VIEW, {})  # goes along where the project has a feature store
    table = pd.DataFrame({"age": [30.0, None, 50.0, 60.0], "customer's plan": ["gold", None, "silver", "gold"]})
    table.assign(months=table["age"] * 12).to_parquet(folder / TEST)
    return folder


def code(folder: Path) -> Path:
    """Copy this project's code into a repository; return the folder of the owner's package."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "src/breast_cancer"


def with_derived(folder: Path) -> Path:
    """Write a repository after `evaluate` whose code has the derived feature, and pack it; return the archive."""
    evaluated(folder, tiny_model.DERIVED_SCHEMA)
    own = code(folder)
    (own / "ages.py").write_text(MONTHS)
    with (own / "features.py").open("a") as features:
        features.write(DERIVED)
    command = [sys.executable, "-m", "gitops.serving.package"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "src")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [archive] = (folder / "package").glob("*.mar")
    return archive
