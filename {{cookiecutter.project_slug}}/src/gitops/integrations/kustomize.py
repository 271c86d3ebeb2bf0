"""Render the Kubernetes objects of a release (`make manifests`): k8s/overlays/<environment>, with image and model.

Each folder in k8s/overlays is an environment. A merge releases to staging where there is one, and to production
otherwise.

The result depends on k8s/, the image and the model, never on the Git commit: a change to documents alone changes no
object, and restarts nothing. The model's version and sha256 are written to the workloads that run it, and nowhere else,
so that a new model changes no Service, policy or alert. Nothing in it makes Argo CD wait (argo_cd.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from gitops.core import params
from gitops.core.artifacts import MODEL, ProjectError, digest, run
from gitops.core.console import echo
from gitops.integrations import argo_cd

PROGRAM = Path(".venv/bin/kustomize")
OVERLAYS = Path("k8s/overlays")
OUTPUT = Path("build/manifests")
PRODUCTION, STAGING = "production", "staging"

#: The container that serves the model, and the name that stands for its image in k8s/base.
SERVER = "model-server"

#: The annotation of the workloads in k8s/ that run the model, or once for each model: a release writes the model's
#: version and sha256 to them.
RUNS_MODEL = "runs-model"


def main() -> None:
    """Write the objects of the workspace's model to a folder, for review."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_image_option(parser)
    add_environment_option(parser, PRODUCTION, "whose objects to render")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder to replace, {OUTPUT} by default")
    arguments = parser.parse_args()

    if not MODEL.exists():
        raise ProjectError(f"{MODEL} is missing: run `make pipeline` first")
    sha256 = digest(MODEL)
    name = params.load().package.model_name
    rendered = render(arguments.image or default_image(sha256[:12]), name, sha256, arguments.environment)
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    for file, content in rendered.items():
        (arguments.output / file).write_bytes(content)
    for warning in argo_cd.not_permitted(rendered):
        echo(f"warning: {warning}", error=True)
    echo(f"{len(rendered)} objects in {arguments.output}/")


def add_image_option(parser: argparse.ArgumentParser) -> None:
    """Add --image to a command."""
    parser.add_argument(
        "--image",
        default=os.environ.get("IMAGE") or None,
        help="reference of the image, NAME:TAG or NAME@sha256:DIGEST (also in IMAGE); the overlay's name with the "
        "model's version as its tag by default",
    )


def add_environment_option(parser: argparse._ActionsContainer, default: str | None, purpose: str) -> None:
    """Add --environment, with this project's environments as its choices, to a command."""
    text = f"{purpose} ({default} by default)" if default else purpose
    parser.add_argument("--environment", choices=environments(), default=default, help=text)


def environments() -> list[str]:
    """Return the project's environments, in the order in which a release reaches them."""
    return [name for name in (STAGING, PRODUCTION) if name == PRODUCTION or (OVERLAYS / name).is_dir()]


def first() -> str:
    """Return the environment that a merge releases to."""
    return environments()[0]


def default_image(version: str) -> str:
    """Return the image name of production's overlay, with the model's version as its tag."""
    return f"{_image_name(OVERLAYS / PRODUCTION)}:{version}"


def render(
    image: str, name: str, sha256: str, environment: str = PRODUCTION, project: Path = Path()
) -> dict[str, bytes]:
    """Return file name -> YAML of each object of the environment, for the model `name` with digest `sha256`.

    `project` is the folder that holds k8s/. Raises ProjectError for a bad image reference, where no kustomize is found,
    for objects that a sync would wait for, where no workload runs the model, or with kustomize's own message.
    """
    overlay = project / OVERLAYS / environment
    with tempfile.TemporaryDirectory(prefix="kustomize-") as folder:
        top, output = Path(folder).resolve() / "top", Path(folder) / "output"
        top.mkdir()
        output.mkdir()
        release = _release(_image_name(overlay), image, name, sha256)
        release["resources"] = [os.path.relpath(overlay.resolve(), top)]  # kustomize takes no absolute path
        # JSON, which is YAML in which no version such as 1e0000000002 can be taken for a number.
        (top / "kustomization.yaml").write_text(json.dumps(release), encoding="utf-8")
        done = subprocess.run([*_program(), str(top), "-o", str(output)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProjectError(f"{overlay} cannot be rendered: {done.stderr.strip()}")
        rendered = {path.name: path.read_bytes() for path in sorted(output.iterdir())}
    argo_cd.require_no_waits(rendered, overlay)
    if not any(sha256.encode() in content for content in rendered.values()):
        raise ProjectError(f'{overlay}: no workload has the annotation {RUNS_MODEL}: "true", so none would run it')
    return _immutable(rendered)


def _immutable(rendered: dict[str, bytes]) -> dict[str, bytes]:
    """Append a hash of its spec to the name of each Job, as kustomize does with ConfigMaps that it generates.

    Kubernetes refuses a change of a Job's spec, and with it the whole release would fail. So another spec is another
    Job: Argo CD starts it, and removes the one before; a rollback brings that back, and it runs again.
    """
    files = {}
    for file, content in rendered.items():
        item = yaml.safe_load(content)
        if (item["apiVersion"], item["kind"]) == ("batch/v1", "Job"):
            name = item["metadata"]["name"]
            suffix = _hash(json.dumps(item["spec"], sort_keys=True))
            # In the text: PyYAML writes a version such as 1e0000000002 in a way that Kubernetes reads as a number.
            content = re.sub(rb"(?m)^  name: \S+$", f"  name: {name}-{suffix}".encode(), content, count=1)
            file = f"{file.removesuffix('.yaml')}-{suffix}.yaml"
        files[file] = content
    return files


def _hash(text: str) -> str:
    """Return ten digits of a sha256, in kustomize's alphabet: none of them makes a word or reads as a number."""
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))


def _release(image_name: str, image: str, name: str, sha256: str) -> dict[str, Any]:
    """Return the kustomization that lays a release over the environment."""
    version = {"labels": {"app.kubernetes.io/version": sha256[:12]}}
    pod = {"metadata": {**version, "annotations": {"model-name": name, "model-sha256": sha256}}}
    spec = {"template": pod}
    return {
        "images": [{"name": image_name, **_reference(image)}],
        "patches": [
            _patch("CronJob", {"metadata": version, "spec": {"jobTemplate": {"spec": spec}}}),
            _patch("DaemonSet|Deployment|Job|Rollout|StatefulSet", {"metadata": version, "spec": spec}),
        ],
    }


def _patch(kinds: str, change: dict[str, Any]) -> dict[str, Any]:
    """Return a strategic merge patch of the workloads of these kinds that run the model."""
    # A patch needs a kind and a name, but those of its targets count.
    kind = {"apiVersion": "apps/v1", "kind": "Deployment"}
    patch = {**kind, **change, "metadata": {"name": "any", **change["metadata"]}}
    return {"target": {"kind": kinds, "annotationSelector": f"{RUNS_MODEL}=true"}, "patch": json.dumps(patch)}


def _reference(image: str) -> dict[str, str]:
    """Split an image reference for kustomize. A colon before the last slash belongs to a registry's port."""
    name, _, image_digest = image.partition("@")
    tagged = ":" in name.rpartition("/")[2]
    bare, tag = name.rsplit(":", 1) if tagged else (name, "")
    if bare and image_digest.startswith("sha256:"):
        return {"newName": bare, "digest": image_digest}
    if bare and tag and not image_digest:
        return {"newName": bare, "newTag": tag}
    raise ProjectError(f"IMAGE is {image!r}: NAME:TAG or NAME@sha256:DIGEST is needed")


def _image_name(overlay: Path) -> str:
    path = overlay / "kustomization.yaml"
    try:
        images = yaml.safe_load(path.read_text(encoding="utf-8")).get("images", [])
    except FileNotFoundError:
        raise ProjectError(f"{path} is missing: it defines what runs in {overlay.name}") from None
    for image in images:
        if image["name"] == SERVER and "newName" in image:
            return str(image["newName"])
    raise ProjectError(f"{path}: images needs an entry with name {SERVER!r} and the image's newName")


def _program() -> list[str]:
    """Return the command that renders a folder: the project's own kustomize, or the one on PATH."""
    if found := shutil.which(PROGRAM) or shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    raise ProjectError(f"neither kustomize nor kubectl is on PATH, nor is there {PROGRAM}: run `make setup`")


if __name__ == "__main__":
    run(main)
