"""What Argo CD would make of a release, said before it: what it would wait for, may not apply, or does not know."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from gitops.core.artifacts import ProjectError
from gitops.integrations import argo_cd, kustomize

IMAGE = f"registry.example/model@sha256:{'a' * 64}"


def files(*objects: str) -> dict[str, bytes]:
    """Objects by their `apiVersion kind`."""
    made = {}
    for each in objects:
        version, kind = each.split()
        made[f"{each}.yaml"] = yaml.safe_dump({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}}).encode()
    return made


def render(project: Path) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
        rendered: dict[str, bytes] = kustomize.render(IMAGE, "toy", "b" * 64, "production", project)
    return rendered


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    return tmp_path


def add(project: Path, item: dict[str, Any]) -> None:
    """Add an object of the owner's to production."""
    overlay = project / "k8s/overlays/production"
    (overlay / "own.yaml").write_text(yaml.safe_dump(item))
    settings = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    settings["resources"].append("own.yaml")
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(settings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("argocd.argoproj.io/hook", "PostSync"),
        ("argocd.argoproj.io/sync-wave", "-1"),
        ("helm.sh/hook", "pre-install"),
        ("helm.sh/hook-weight", "5"),
    ],
)
def test_an_object_that_a_sync_would_wait_for_is_refused(project: Path, name: str, value: str) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "own"}, "spec": {"ports": [{"port": 80}]}}
    add(project, service)
    assert render(project)
    service["metadata"] = {"name": "own", "annotations": {name: value}}
    (project / "k8s/overlays/production/own.yaml").write_text(yaml.safe_dump(service))
    with pytest.raises(ProjectError) as refused:
        render(project)
    assert f"k8s/overlays/production: Service own has the annotation {name}: Argo CD would wait" in str(refused.value)


def test_other_annotations_are_not_refused(project: Path) -> None:
    annotations = {"argocd.argoproj.io/sync-options": "Prune=false", "prometheus.io/scrape": "true"}
    metadata = {"name": "own", "annotations": annotations}
    add(project, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}})
    assert render(project)


def test_a_kind_that_argo_cd_may_not_apply_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ingress = b"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: x}\n"
    monkeypatch.chdir(ROOT)
    rendered = render(ROOT)
    assert argo_cd.not_permitted(rendered) == []
    [warning] = argo_cd.not_permitted(rendered | {"ingress.yaml": ingress, "other.yaml": ingress})
    assert "k8s/argocd/project.yaml does not list the kind Ingress" in warning
    monkeypatch.chdir(tmp_path)  # a project that has deleted k8s/argocd: the platform's AppProject is not known here
    assert argo_cd.not_permitted({"ingress.yaml": ingress}) == []


def test_kinds_that_an_operator_brings_are_named_when_they_are_new() -> None:
    """Where the environment runs them, they are there."""
    monitors = ["monitoring.coreos.com/v1 ServiceMonitor", "monitoring.coreos.com/v1 PrometheusRule"]
    plain = ["v1 Service", "apps/v1 Deployment", "networking.k8s.io/v1 NetworkPolicy", "policy/v1 PodDisruptionBudget"]
    release = files(*plain, *monitors, "keda.sh/v1alpha1 ScaledObject")
    assert argo_cd.needed(release, {}) == [
        "The release needs ScaledObject (keda.sh) in the cluster, which KEDA brings: "
        "without that Argo CD applies nothing of it",
        "The release needs PrometheusRule and ServiceMonitor (monitoring.coreos.com) in the cluster, which the "
        "Prometheus operator brings: without that Argo CD applies nothing of it",
    ]
    assert argo_cd.needed(release, release) == argo_cd.needed(files(*plain), {}) == []
    [line] = argo_cd.needed(release, files(*plain, *monitors))
    assert "ScaledObject" in line
    [line] = argo_cd.needed(files("argoproj.io/v1alpha1 Rollout"), release)
    assert "Argo Rollouts" in line
    [line] = argo_cd.needed(files("gateway.networking.k8s.io/v1 HTTPRoute"), {})
    assert "HTTPRoute (gateway.networking.k8s.io) in the cluster, which an operator brings:" in line


def test_all_of_a_new_project_that_an_operator_brings(project: Path) -> None:
    lines = argo_cd.needed(render(project), {})
    assert [line.partition(" in the cluster")[0] for line in lines] == [
        "The release needs PrometheusRule and ServiceMonitor (monitoring.coreos.com)"
    ]
