"""`make test-gitops`: the tests of the package gitops, in a generated project.

They lie in tests/gitops, and run in the environments of the default project, which is generated in build/gitops; its
environments are kept from run to run. Options are pytest's: `make test-gitops ARGS="-k gate"`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
TESTS = TEMPLATE / "tests/gitops"
FOLDER = TEMPLATE / "build/gitops"


def main() -> int:
    """Generate the project anew, run the tests in it, and return pytest's exit status."""
    project = generate()
    subprocess.run(["make", "setup"], cwd=project, check=True)
    return subprocess.run(command(project, *sys.argv[1:]), cwd=project, check=False).returncode


def generate() -> Path:
    """Return the default project in FOLDER, which has the environments of the one that was there."""
    project, kept = FOLDER / "breast-cancer", FOLDER / ".venv"
    if (project / ".venv").exists():
        (project / ".venv").rename(kept)
    shutil.rmtree(project, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    generator = Path(sys.executable).with_name("cookiecutter")
    subprocess.run([generator, "--no-input", "--output-dir", str(FOLDER), str(TEMPLATE)], check=True)
    if kept.exists():
        kept.rename(project / ".venv")
    return project


def command(project: Path, *options: str) -> list[str]:
    """Return the command that runs the tests in a project, from its folder; a worker for each core."""
    chosen = [option for option in options if not option.startswith("-") and (TESTS / option).exists()]
    others = [option for option in options if option not in chosen]
    paths = [str(TESTS / name) for name in chosen] or [str(TESTS)]
    python = str(project / ".venv/pipeline/bin/python")
    workers = ["--numprocesses", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile", "--no-loadscope-reorder"]
    settings = ["-c", str(TESTS / "pytest.ini"), "--rootdir", str(TESTS), "--confcutdir", str(TESTS)]
    return [python, "-m", "pytest", *workers, *settings, *others, *paths]


if __name__ == "__main__":
    sys.exit(main())
