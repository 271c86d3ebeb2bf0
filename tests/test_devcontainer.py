"""The development container: built by buildah on a base of this machine's packages, and a project set up in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from images import PACKAGES, Buildah, debian, enter, wheel_folders
from projects import generate

pytestmark = [pytest.mark.real, pytest.mark.full]


def test_a_project_is_set_up_in_it(buildah: Buildah, identity: None, tmp_path: Path) -> None:
    """Its post-create command, as its user, in the project's folder."""
    (tmp_path / "base").mkdir()
    base = debian(buildah, tmp_path / "base", "localhost/workbase", PACKAGES | {"git", "make", "openssh-client"})
    project = generate(tmp_path)
    settings = json.loads((project / ".devcontainer/devcontainer.json").read_text())
    # What the base has already is not installed again, and nothing is pulled.
    containerfile = project / ".devcontainer" / settings["build"]["dockerfile"]
    image = buildah.build(project, str(containerfile), "localhost/workspace", BASE=base)
    root, config = buildah.files(image), buildah.config(image)["config"]
    subprocess.run(["chown", "--recursive", config["User"], project], check=True)
    shutil.rmtree(project / ".venv", ignore_errors=True)
    (root / "etc/resolv.conf").touch()  # a runtime mounts the machine's
    (root / "usr/bin/kubectl").touch()
    mounts = {"/workspace": (project, "rw"), "/etc/resolv.conf": (Path("/etc/resolv.conf"), "ro")}
    if kubectl := shutil.which("kubectl"):  # else kustomize is fetched
        mounts["/usr/bin/kubectl"] = (Path(kubectl).resolve(), "ro")
    mounts |= {folder: (Path(folder), "ro") for folder in wheel_folders()}
    places = {"UV_CACHE_DIR": "/tmp/uv", "PIP_CACHE_DIR": "/tmp/pip"}  # noqa: S108  its own /tmp
    command = enter(
        root,
        config | {"WorkingDir": "/workspace"},
        environment={name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))} | places,
        mounts=mounts,
        tmpfs=("/tmp",),  # noqa: S108
        command=["sh", "-ec", f"{settings['postCreateCommand']} && git --version"],
    )
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "git version" in done.stdout
    assert (project / ".venv/pipeline/bin/python").is_symlink()
