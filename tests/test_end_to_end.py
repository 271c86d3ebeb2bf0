"""`make end-to-end` on the stand-in of a cluster: what it must find, and what it must not let through.

Time passes here only while the program pauses, for the program as for the cluster: neither a slow machine nor a fast
one changes what is seen.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cluster
import pytest
import yaml
from projects import ROOT, generate, make

FIRST, SECOND = ("1" * 64, "2" * 64)
NAME = "breast-cancer"
Object = dict[str, Any]


@dataclass
class Clock:
    """What the program takes for the module `time`: the cluster's clock, which its pauses move on."""

    path: Path

    def monotonic(self) -> float:
        return float(self.path.read_text())

    def sleep(self, seconds: float) -> None:
        self.path.write_text(str(self.monotonic() + seconds))


@dataclass
class Bench:
    """demo/ of the template as the program has it after its first chapters, with a cluster that follows production."""

    demo: Path
    address: str
    state: Path
    tools: SimpleNamespace  # the program's modules

    def git(self, *arguments: str | Path) -> str:
        command = ["git", "-C", str(self.demo / "production"), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def image(self, tag: str, model: str) -> str:
        """Have an image on the nodes, with that model in it."""
        name = f"localhost/{NAME}:{tag}"
        path = self.state / "cluster.json"
        state = json.loads(path.read_text())
        state["built"][name] = state["loaded"][name] = model
        path.write_text(json.dumps(state))
        return name

    def release(self, model: str, image: str, change: Callable[[list[Object]], None] | None = None) -> None:
        """Commit what `make deploy` would of this template's manifests to env/production."""
        overlay = self.demo / NAME / "k8s/overlays/production"
        done = subprocess.run(["kubectl", "kustomize", overlay], check=True, capture_output=True, text=True)
        objects = list(yaml.safe_load_all(done.stdout))
        for item in objects:
            if item["metadata"].get("annotations", {}).get("runs-model"):
                template = item["spec"]["template"]
                template["metadata"].setdefault("annotations", {})["model-sha256"] = model
                for container in template["spec"]["containers"]:
                    container["image"] = image
        if change:
            change(objects)
        folder = self.demo / "production/manifests"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for item in objects:
            file = f"{item['apiVersion']}_{item['kind']}_{item['metadata']['name']}".lower().replace("/", "_")
            (folder / f"{file}.yaml").write_text(yaml.safe_dump(item))
        record = {"model": {"name": NAME, "version": model[:12]}}
        (self.demo / "production/release.json").write_text(json.dumps(record))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"Release {model[:12]}")
        self.git("push", "--quiet", "origin", "env/production")

    def back(self) -> None:
        """Take the newest release back, as `make rollback` does: the tree of the release before."""
        self.git("revert", "--no-edit", "HEAD")
        self.git("push", "--quiet", "origin", "env/production")


@pytest.fixture(scope="module")
def made(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The bench after its first release, with a copy of all that the tests change beside it."""
    top = tmp_path_factory.mktemp("end_to_end")
    folder, state, programs = top / "now/demo", top / "now/state", top / "bin"
    fake_cluster.install(programs)
    state.mkdir(parents=True)
    (state / "clock").write_text("1000")
    project = generate(top / "generated")
    shutil.copytree(project / "k8s", folder / NAME / "k8s")
    (folder / NAME / "package").mkdir()
    (folder / NAME / "package/golden_request.json").write_text('{"instances": [{"size": 1}]}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_CLUSTER", str(state))
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        modules = programs_of(patch, folder, Clock(state / "clock"))
        with modules.git_server.serve(folder) as address:
            bench = Bench(folder, address, state, modules)
            start(bench)
            shutil.copytree(top / "now", top / "kept")
            yield bench


def programs_of(patch: pytest.MonkeyPatch, folder: Path, clock: Clock) -> SimpleNamespace:
    """Return the modules of the program, for a demo/ in `folder` and with that clock."""
    patch.syspath_prepend(ROOT / "tools")
    names = ("demo", "cluster", "cluster_argo_cd", "cluster_service", "git_server")
    modules = {name: importlib.import_module(name) for name in names}
    modules |= {name: importlib.import_module(f"end_to_end_{name}") for name in ("release", "broken", "fleet")}
    for name, value in {"DEMO": folder, "PROJECT": folder / NAME, "ORIGIN": folder / "origin.git"}.items():
        patch.setattr(modules["demo"], name, value)
    patch.setattr(modules["demo"], "ENVIRONMENT", dict(os.environ))
    patch.setattr(modules["fleet"], "PLATFORM", folder / "platform")
    patch.setattr(modules["fleet"], "CLONE", folder / "second")
    for name in ("cluster_argo_cd", "cluster_service", "release", "broken", "fleet"):
        patch.setattr(modules[name], "time", clock)
    for name in ("cluster_argo_cd", "cluster_service"):
        patch.setattr(modules[name], "PAUSE", 5.0)
    return SimpleNamespace(**modules)


def start(bench: Bench) -> None:
    """Make the cluster, and release the first model."""
    subprocess.run(["git", "init", "--quiet", "--bare", bench.demo / "origin.git"], check=True)
    production = ("--initial-branch=env/production", bench.demo / "production")
    subprocess.run(["git", "init", "--quiet", *production], check=True)
    bench.git("remote", "add", "origin", "../origin.git")
    bench.tools.cluster.make()
    bench.release(FIRST, bench.image("first", FIRST))
    bench.tools.cluster_argo_cd.follow(f"{bench.address}/origin.git")
    assert bench.tools.release.expect("ask") == FIRST[:12]


@pytest.fixture
def bench(made: Bench) -> Bench:
    now = made.state.parent
    shutil.rmtree(now)
    shutil.copytree(now.with_name("kept"), now)
    return made


def hook(objects: list[Object]) -> None:
    """A Job that asks the model after each release, as a hook."""
    [server] = [item for item in objects if item["kind"] == "Deployment"]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "ask", "annotations": {"argocd.argoproj.io/hook": "PostSync"}},
        "spec": {"template": json.loads(json.dumps(server["spec"]["template"]))},
    }
    job["spec"]["template"]["spec"] |= {"restartPolicy": "Never", "affinity": {}, "topologySpreadConstraints": []}  # type: ignore[index]
    objects.append(job)


def wave(objects: list[Object]) -> None:
    """The autoscaler after the server is ready."""
    for item in objects:
        if item["kind"] == "HorizontalPodAutoscaler":
            item["metadata"]["annotations"] = {"argocd.argoproj.io/sync-wave": "1"}


def broken(bench: Bench, change: Callable[[list[Object]], None] | None = None) -> None:
    """Release the second model with an image that holds the first."""
    bench.release(SECOND, bench.image("cannot-start", FIRST), change)


def prune(objects: list[Object]) -> None:
    """One object less than the release before."""
    [budget] = [item for item in objects if item["kind"] == "PodDisruptionBudget"]
    objects.remove(budget)


@pytest.mark.parametrize("change", [None, prune])
def test_broken_release_is_taken_back_at_once(
    change: Callable[[list[Object]], None] | None, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(bench, change)
    bench.tools.broken.stands(FIRST[:12])
    bench.back()
    capsys.readouterr()
    bench.tools.broken.taken_back(FIRST[:12])
    assert "the rollback was applied after " in capsys.readouterr().out
    assert bench.tools.release.expect("ask") == FIRST[:12]


@pytest.mark.parametrize("change", [hook, wave])
def test_held_rollback_is_found(change: Callable[[list[Object]], None], bench: Bench) -> None:
    """What Argo CD waits for in the middle of a release keeps the rollback away, and the program says so."""
    broken(bench, change)
    bench.tools.broken.stands(FIRST[:12])
    bench.back()
    with pytest.raises(SystemExit, match=r"the rollback is held: .* waiting for healthy state of .*Deployment"):
        bench.tools.broken.taken_back(FIRST[:12])


def test_release_that_starts_is_found(bench: Bench) -> None:
    bench.release(SECOND, bench.image("second", SECOND))
    with pytest.raises(SystemExit, match=f"model {SECOND[:12]} of {NAME} answers instead of {FIRST[:12]}"):
        bench.tools.broken.stands(FIRST[:12])


def test_model_that_stops_answering_is_found(bench: Bench) -> None:
    def without_pods(objects: list[Object]) -> None:
        [service] = [item for item in objects if item["kind"] == "Service"]
        service["spec"]["selector"] = {"app": "none"}

    broken(bench, without_pods)
    with pytest.raises(SystemExit, match=f"model {FIRST[:12]} of {NAME} does not answer any more"):
        bench.tools.broken.stands(FIRST[:12])


def fleet(bench: Bench) -> None:
    """A second repository, with the settings of this checkout's platform."""
    subprocess.run(["rm", "-rf", bench.demo / "second"], check=True)
    bench.tools.fleet.second_repository(bench.address)


def test_second_repository_gets_its_namespace_and_cannot_leave_it(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet(bench)
    assert "namespace and release were there after " in capsys.readouterr().out
    bench.tools.fleet.attacked()
    said = capsys.readouterr().out
    assert "refused: NetworkPolicy/default-deny NetworkPolicy/everywhere Service/somebody-elses-address" in said
    assert "refused: ClusterRoleBinding/everything ConfigMap/in-another-namespace" in said
    state = json.loads((bench.state / "cluster.json").read_text())
    names = {where.rpartition("/")[2] for where in state["objects"]}
    assert not names & {"everywhere", "somebody-elses-address", "privileged", "everything", "in-another-namespace"}


#: A platform without one of its parts: file of k8s/, what is replaced in it, and what the program must say then.
WITHOUT = {
    "admission": (
        "kustomization.yaml",
        ("  - fleet/admission\n", ""),
        "not refused: NetworkPolicy/default-deny, NetworkPolicy/everywhere, Service/somebody-elses-address",
    ),
    "restricted pods": (
        "tenant/namespace.yaml",
        ("    pod-security.kubernetes.io/enforce: restricted\n", ""),
        "no word that privileged pods are refused",
    ),
    "a narrow project": (
        "tenant/project.yaml",
        (
            "  namespaceResourceWhitelist:",
            "  clusterResourceWhitelist:\n"
            "    - {group: rbac.authorization.k8s.io, kind: ClusterRoleBinding}\n"
            "  namespaceResourceWhitelist:",
        ),
        "not refused: ClusterRoleBinding/everything; Argo CD says",
    ),
}


@pytest.mark.parametrize("part", WITHOUT)
def test_platform_without_a_part_is_found(
    part: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (text, other), reason = WITHOUT[part]
    path = Path(shutil.copytree(ROOT / "k8s", tmp_path / "k8s"), name)
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, other))
    monkeypatch.setattr(bench.tools.demo, "TEMPLATE", tmp_path)
    monkeypatch.setattr(bench.tools.fleet, "REFUSED_WITHIN", 60)
    fleet(bench)
    with pytest.raises(SystemExit, match=reason):
        bench.tools.fleet.attacked()


@pytest.mark.real
@pytest.mark.full
def test_end_to_end_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the cluster for real: the project, its releases, the ways back, and the Git server that is followed."""
    template, state, programs = tmp_path / "template", tmp_path / "state", tmp_path / "bin"
    shutil.copytree(ROOT, template, ignore=shutil.ignore_patterns(".git", ".venv", "demo", ".*_cache", "__pycache__"))
    state.mkdir()
    fake_cluster.install(programs)
    monkeypatch.setenv("FAKE_CLUSTER", str(state))
    monkeypatch.setenv("FAKE_CLUSTER_SPEED", "5")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    make(template, "end-to-end")
    said = json.loads((state / "cluster.json").read_text())
    answered = [version for namespace, version in said["answered"] if namespace == NAME]
    first, second, *rest = [version for version, _ in groupby(answered)]
    assert first != second
    assert rest == [first, second, first], "the release that cannot start must not answer, nor leave a gap"
    assert {version for namespace, version in said["answered"] if namespace == "m-second-production"} == {first}
    tags = {image.rpartition(":")[2]: model[:12] for image, model in said["loaded"].items()}
    assert tags == {first: first, second: second, "cannot-start": first}
