"""What the overlays of a generated project render, as they are and with components switched on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Objects = list[dict[str, Any]]


def render(folder: Path) -> Objects:
    """Return what kustomize makes of a folder."""
    program = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    done = subprocess.run([*program, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def copied(project: Path, folder: Path) -> Path:
    """Return a copy of the project's k8s/ in which components can be switched on: their images are there."""
    for part in ("k8s", "serving"):
        shutil.copytree(project / part, folder / part)
    for user in (folder / "k8s").glob("components/*/kustomization.yaml"):
        user.write_text(re.sub(r"newTag: unset.*", f"digest: sha256:{'0' * 64}", user.read_text()))
    return folder / "k8s"


def components(k8s: Path) -> list[str]:
    """Return the names of the components that there are."""
    return [path.parent.name for path in sorted(k8s.glob("components/*/kustomization.yaml"))]


def switched_on(overlay: Path) -> list[str]:
    """Return the names of the components that an overlay has."""
    return [Path(each).name for each in yaml.safe_load((overlay / "kustomization.yaml").read_text())["components"]]


def released(overlay: Path, *more: str) -> Objects:
    """Return an overlay with `more` components, as a release renders it. Leaves a folder beside it."""
    settings = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    settings["images"][0]["digest"] = f"sha256:{'0' * 64}"  # a release gives it
    top = overlay.with_name("-".join([overlay.name, *more, "released"]))
    top.mkdir()
    present = settings["components"] + [f"../../components/{component}" for component in more]
    (top / "kustomization.yaml").write_text(yaml.safe_dump(settings | {"components": present}))
    return render(top)


def renders(k8s: Path) -> Iterator[tuple[str, Objects]]:
    """Render each overlay as it is and with each component that it does not have, k8s/argocd* and k8s/redis."""
    for folder in [*sorted(k8s.glob("argocd*")), *k8s.glob("redis")]:
        yield folder.name, render(folder)
    for overlay in [path.parent for path in sorted(k8s.glob("overlays/*/kustomization.yaml"))]:
        others = [component for component in components(k8s) if component not in switched_on(overlay)]
        for more in [[], *([component] for component in others)]:
            yield "-".join([overlay.name, *more, "released"]), released(overlay, *more)
