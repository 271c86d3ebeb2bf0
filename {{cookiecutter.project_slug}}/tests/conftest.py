"""Tests import the package as `project`, so that they need no change when it is renamed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INIT = next((ROOT / "src").glob("*/__init__.py"))

#: The package's real name, for tests that start a command of it.
PACKAGE = INIT.parent.name

spec = importlib.util.spec_from_file_location("project", INIT, submodule_search_locations=[str(INIT.parent)])
assert spec is not None and spec.loader is not None
sys.modules["project"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["project"])
