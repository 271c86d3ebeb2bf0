"""Five changes of the platform that an owner makes, those of docs/system-design.md: each leaves every command green.

Each diff in tests/changes/platform/ is applied by itself to main of one project, checked and released as in CI, and
taken back.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import ROOT, generate, make

pytestmark = pytest.mark.real

Objects = dict[tuple[str, str], dict[str, Any]]

DIFFS = {path.stem: path for path in sorted((ROOT / "tests/changes/platform").glob("*.diff"))}

#: Training takes less time with these; how good the model is does not matter here.
QUICK = {"epochs: 200": "epochs: 30", "roc_auc: 0.9": "roc_auc: 0.5"}

SERVER = ("Deployment", "breast-cancer")


def prometheus_namespace(objects: Objects) -> bool:
    rules = objects["NetworkPolicy", "breast-cancer"]["spec"]["ingress"]
    [sender] = next(rule["from"] for rule in rules if {"port": 8082} in rule["ports"])
    return bool(sender["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "observability"})


def sidecar(objects: Objects) -> bool:
    """All containers are there, and the release has reached the server's."""
    template = objects[SERVER]["spec"]["template"]
    images = {
        each["name"]: each["image"] for kind in ("initContainers", "containers") for each in template["spec"][kind]
    }
    names_model = images["model-server"].endswith(":" + template["metadata"]["annotations"]["model-sha256"][:12])
    return names_model and "fluent-bit" in images["request-log"]


def fixed_replicas(objects: Objects) -> bool:
    return objects[SERVER]["spec"]["replicas"] == 3 and "HorizontalPodAutoscaler" not in {kind for kind, _ in objects}


def extra_file(objects: Objects) -> bool:
    pods = objects[SERVER]["spec"]["template"]["metadata"]["labels"]
    return bool(objects["Service", "diagnosis"]["spec"]["selector"].items() <= pods.items())


#: What is released after the change. An own workflow releases nothing.
RELEASED: dict[str, Callable[[Objects], bool]] = {
    "extra_file": extra_file,
    "fixed_replicas": fixed_replicas,
    "prometheus_namespace": prometheus_namespace,
    "sidecar": sidecar,
}


def git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def production(project: Path) -> tuple[str, Objects]:
    """Return the tree of env/production on origin, and its objects by kind and name."""
    git(project, "fetch", "--quiet", "origin", "env/production")
    names = git(project, "ls-tree", "--name-only", "FETCH_HEAD", "manifests/").splitlines()
    objects = [yaml.safe_load(git(project, "show", f"FETCH_HEAD:{name}")) for name in names]
    return git(project, "rev-parse", "FETCH_HEAD^{tree}"), {
        (item["kind"], item["metadata"]["name"]): item for item in objects
    }


@pytest.fixture(scope="module")
def released(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project after a short training and its release to a bare origin. A test leaves main as it was."""
    folder = tmp_path_factory.mktemp("platform")
    project = generate(folder)
    settings = project / "params.yaml"
    for old, new in QUICK.items():
        assert old in settings.read_text()
        settings.write_text(settings.read_text().replace(old, new))
    make(project, "pipeline")
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(project, "remote", "add", "origin", str(folder / "origin.git"))
    commit(project, "Train")
    make(project, "verify")
    assert git(project, "status", "--porcelain") == ""  # the same results are the same bytes
    make(project, "gate")
    make(project, "plan")
    make(project, "deploy")
    return project


def commit(project: Path, message: str) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", message)
    git(project, "push", "--quiet", "origin", "HEAD:main")


def test_documents_show_these_diffs(projects: dict[str, Path]) -> None:
    assert DIFFS.keys() == {"own_workflow", *RELEASED}
    shown = re.findall(r"```diff\n(.*?)```", (projects["defaults"] / "docs/system-design.md").read_text(), re.DOTALL)
    assert sorted(shown) == sorted(path.read_text() for path in DIFFS.values())


@pytest.mark.parametrize("name", DIFFS)
def test_everything_stays_green(name: str, released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIP", "mypy")  # of the hooks of `make lint`: the slowest, and no diff changes a module
    before, _ = production(released)
    git(released, "apply", str(DIFFS[name]))
    commit(released, name)
    make(released, "lint")
    assert git(released, "status", "--porcelain") == ""
    make(released, "manifests")
    make(released, "gate")
    make(released, "report")
    plan = make(released, "plan")
    if name in RELEASED:
        assert "To be released" in plan
        make(released, "deploy")
        after, objects = production(released)
        assert RELEASED[name](objects)
        assert "### Deployment\n\n<details>" in (released / "reports/report.md").read_text()
        make(released, "rollback")
        assert production(released)[0] == before != after
    else:
        assert "nothing to release" in plan
    git(released, "revert", "--no-edit", "HEAD")
    git(released, "push", "--quiet", "origin", "HEAD:main")


@pytest.mark.full
@pytest.mark.parametrize("name", DIFFS)
def test_the_projects_tests_pass(name: str, released: Path) -> None:
    """They read nothing that these diffs change."""
    git(released, "apply", str(DIFFS[name]))
    make(released, "test")
    git(released, "reset", "--quiet", "--hard")
    git(released, "clean", "--quiet", "--force", "-d")
