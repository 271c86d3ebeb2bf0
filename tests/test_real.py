"""One project for real: its environments, tests, linters and pipeline; then the demo in a copy of the template."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT, generate, make

pytestmark = pytest.mark.real

#: Prints the names under which an environment's packages are imported.
IMPORTED = "import importlib.metadata as m; print(*m.packages_distributions())"


@pytest.fixture(scope="module")
def made(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project with its environments, in which the tests below go on in order."""
    project = generate(tmp_path_factory.mktemp("real"))
    make(project, "setup")
    return project


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_right_environments_are_left_alone(made: Path) -> None:
    assert make(made, "setup") == ""


def test_names_of_dependencies_are_refused_for_the_package(made: Path) -> None:
    """The list in the hook is complete: every package that an environment imports is in it."""
    hook = (ROOT / "hooks/pre_gen_project.py").read_text()
    refused = set(re.split(r'"""', hook[hook.index("IMPORTED = set(") :])[1].split())
    for environment in ("pipeline", "validate", "serve"):
        imported = run(made / f".venv/{environment}/bin/python", "-c", IMPORTED, cwd=made).split()
        names = {name for name in imported if re.fullmatch(r"[a-z][a-z0-9_]+", name) and "__mypyc" not in name}
        assert names - refused - set(sys.stdlib_module_names) - {made.name.replace("-", "_")} == set()


def test_bundled_table_is_what_its_program_writes(made: Path) -> None:
    program = "import sys, bundled_data; sys.stdout.buffer.write(bundled_data.table())"
    table = run(made / ".venv/pipeline/bin/python", "-c", program, cwd=ROOT / "tools")
    assert table.encode() == next((made / "dvc-remote/files/md5").glob("*/*")).read_bytes()


def test_unit_tests(made: Path) -> None:
    assert re.search(r"\d+ passed", make(made, "test"))


def test_lint(made: Path) -> None:
    """Right after generation nothing is to be mended."""
    make(made, "lint")
    assert run("git", "status", "--porcelain", cwd=made) == ""


def test_pipeline(made: Path) -> None:
    make(made, "pipeline")
    assert run("git", "status", "--porcelain", cwd=made) == "?? dvc.lock\n"
    assert json.loads((made / "evaluation/metrics.json").read_text())["metrics"]["roc_auc"]["value"] > 0.95
    assert "Running stage" not in make(made, "pipeline")


def test_fresh_clone_has_the_table(made: Path, tmp_path: Path) -> None:
    run("git", "clone", "--quiet", made, tmp_path / "clone", cwd=tmp_path)
    run(made / ".venv/pipeline/bin/dvc", "pull", "data/raw.csv.dvc", cwd=tmp_path / "clone")
    assert (tmp_path / "clone/data/raw.csv").read_bytes() == (made / "data/raw.csv").read_bytes()


def test_demo(tmp_path: Path) -> None:
    """`make demo` in a copy of the template leaves the summary that it promises."""
    template = tmp_path / "template"
    shutil.copytree(ROOT, template, ignore=shutil.ignore_patterns(".git", ".venv", "demo", ".*_cache", "__pycache__"))
    make(template, "demo")
    summary = json.loads((template / "demo/summary.json").read_text())
    assert summary.keys() >= {"steps", "report", "manifest", "release", "prediction", "model_version"}
    assert all(step.keys() >= {"name", "seconds"} for step in summary["steps"])
    assert summary["release"]["model"]["sha256"].startswith(summary["model_version"])
    assert summary["prediction"]["model_version"] == summary["model_version"]
    assert (template / summary["report"]).stat().st_size < 60_000
