"""Write the locks of the generated project, one of the pipeline's and of the server's per DVC remote.

    make lock [ARGS=--upgrade]

A project is generated for each kind of remote, its own `make lock` is run, and the result is copied back. `make lock`
writes the template's own locks before, because this runs in an environment that is made from one of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copy

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"

#: An address of each kind; the kinds are the extras of DVC.
REMOTES = {
    "folder": "dvc-remote",
    "s3": "s3://bucket/path",
    "gs": "gs://bucket/path",
    "azure": "azure://container/path",
    "ssh": "ssh://host/path",
}


def main() -> None:
    options = sys.argv[1:]
    # The projects use the root's uv where PATH has none.
    os.environ["PATH"] += f"{os.pathsep}{ROOT / '.venv/uv/bin'}"
    with tempfile.TemporaryDirectory() as folder:
        for kind, address in REMOTES.items():
            output = Path(folder) / kind
            baked = Path(
                cookiecutter(
                    str(ROOT),
                    no_input=True,
                    output_dir=str(output),
                    extra_context={"dvc_remote": address, "feature_store": "yes"},
                )
            )
            names = ["pipeline", "serve"] if kind != "folder" else []  # the other is the same for every kind
            print(f"{kind}:", flush=True)
            command = [sys.executable, "-m", "gitops.project.environments", "lock", *options, *names]
            subprocess.run(command, cwd=baked, env=os.environ | {"PYTHONPATH": "src"}, check=True)
            for name in ("pipeline", "serve"):
                copy(baked / f"requirements/{name}.txt", PROJECT / f"requirements/{name}/{kind}.txt")
            if kind == "folder":
                for name in ("debt", "explore", "features", "release", "validate"):
                    copy(baked / f"requirements/{name}.txt", PROJECT / f"requirements/{name}.txt")


if __name__ == "__main__":
    main()
