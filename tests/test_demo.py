"""The demo for real, in a copy of the template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from projects import ROOT, make

pytestmark = pytest.mark.real


def test_demo(tmp_path: Path) -> None:
    """`make demo` leaves the summary that it promises. A project's own tests run in test_real.py."""
    template = tmp_path / "template"
    shutil.copytree(ROOT, template, ignore=shutil.ignore_patterns(".git", ".venv", "demo", ".*_cache", "__pycache__"))
    printed = make(template, "demo")
    summary = json.loads((template / "demo/summary.json").read_text())
    assert summary.keys() >= {"steps", "report", "manifest", "release", "prediction", "model_version"}
    assert all(step.keys() >= {"name", "seconds"} for step in summary["steps"])
    count = len(summary["steps"])
    assert f"\n-- [1 of {count}, 00:" in printed and f"\n-- [{count} of {count}, " in printed
    assert summary["release"]["model"]["sha256"].startswith(summary["model_version"])
    assert summary["prediction"]["model_version"] == summary["model_version"]
    assert (template / summary["report"]).stat().st_size < 60_000
    assert summary["release"]["model"]["sha256"] in (template / summary["manifest"]).read_text()
    assert summary["rolled_back_to"] != summary["model_version"]
    assert summary["retrained"]["model"]["version"] not in (summary["model_version"], summary["rolled_back_to"])
    assert summary["retrained"]["rows"]["raw"] == 2 * summary["release"]["rows"]["raw"]
