"""The combinations of answers that are supported, and how a project is generated from one."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]

#: Each is generated, compared with tests/generated_files.txt and linted. An answer left out has its default.
COMBINATIONS: dict[str, dict[str, str]] = {
    "defaults": {},
    "license-apache": {"license": "Apache-2.0"},
    "license-bsd": {"license": "BSD-3-Clause"},
    "license-proprietary": {"license": "Proprietary"},
    "staging": {"staging": "yes"},
    "feature-store": {"feature_store": "yes"},
    "remote-absolute-folder": {"dvc_remote": "/srv/dvc"},
    "remote-s3": {"dvc_remote": "s3://some-bucket/some/path"},
    "remote-s3-whole-bucket": {"dvc_remote": "s3://some-bucket"},
    "remote-gs": {"dvc_remote": "gs://some-bucket/path"},
    "remote-azure": {"dvc_remote": "azure://container/path"},
    "remote-ssh": {"dvc_remote": "ssh://somebody@host.example:2222/srv/dvc"},
    "foreign": {
        "project_name": "Größe & Gewicht: Fischers Abalonen #2",
        "project_slug": "abalone-age",
        "package_name": "ringcount",
        "github_owner": "Meeres-Forschung-9",
        "dvc_remote": "gs://meer/ringe",
        "license": "BSD-3-Clause",
        "staging": "yes",
        "feature_store": "yes",
    },
    "short-names": {"project_name": "X", "project_slug": "x1", "package_name": "x_", "github_owner": "y"},
}


def generate(folder: Path, **answers: str) -> Path:
    """Generate a project in `folder` without a question and return its path. Raises what cookiecutter raises."""
    project = cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=str(folder), extra_context=answers)
    return Path(project)


def tracked(project: Path) -> list[str]:
    """Return the paths that the project's Git tracks, sorted."""
    output = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files"], cwd=project, capture_output=True, text=True, check=True
    )
    return sorted(output.stdout.splitlines())


def package_name(project: Path) -> str:
    """Return the name of the project's package."""
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return str(settings["tool"]["gitops"]["package"])


def module_of(project: Path, path: str) -> ModuleType:
    """Import a file of the project under its own name."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, project / path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gitops_tests(project: Path, *options: str) -> list[str]:
    """Return the command that runs the tests of gitops in the project, from its folder."""
    spec = importlib.util.spec_from_file_location("test_gitops", ROOT / "tools/test_gitops.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command: list[str] = module.command(project, *options)
    return command


def environment() -> dict[str, str]:
    """Return a user's variables: not those that the template's own make, environment or job on GitHub hands down."""
    handed_down = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI")
    own = (item for item in os.environ.items() if not item[0].startswith("GITHUB_"))
    return {name: value for name, value in own if name not in handed_down}


def make(project: Path, *arguments: str) -> str:
    """Run `make` in the project as a user would, and return what it printed, which is what a failure says too."""
    done = subprocess.run(
        ["make", *arguments],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"make {' '.join(arguments)}\n{done.stdout}"
    return done.stdout


@contextmanager
def served(project: Path, *options: str) -> Iterator[str]:
    """Run `make serve` on a free port and yield the address of predictions that it prints; it ends as by Ctrl-C."""
    command = ["make", "serve", f"ARGS={' '.join(['--port 0', *options])}"]
    server = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True, process_group=0
    )
    printed = []
    try:
        for line in server.stdout or []:
            printed.append(line)
            if found := re.search(r"^curl \S+ (http://\S+)", line):
                yield found[1]
                break
        else:
            raise AssertionError(f"make serve ended before it answered:\n{''.join(printed)}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=60)
