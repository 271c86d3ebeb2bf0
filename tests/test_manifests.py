"""Every overlay, with each component, of every combination whose objects differ: Kubernetes' own schemas, and checkov.

What an alert or a policy says is tested in the generated project (its tests/test_manifests.py).
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_checks import Objects, checkov, problems
from overlays import copied, renders

#: The objects hold the project's name and its owner, there are more of them with staging and with a feature store.
DIFFERING = ("defaults", "feature-store", "foreign", "short-names", "staging")

#: What checkov finds and is meant so.
SUPPRESSED = {
    "CKV_K8S_11": "no limit on the CPU: a throttled worker answers late for no one's gain",
    "CKV_K8S_21": "the namespace is that of Argo CD's Application, not the manifest's",
    "CKV_K8S_40": "1000 is the image's user; the namespace's pod security keeps it away from the host",
}


@pytest.fixture(scope="module")
def rendered(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Objects]:
    """Each render by its name, of copies, because components are switched on beside the overlays."""
    found: dict[str, Objects] = {}
    for name in DIFFERING:
        k8s = copied(projects[name], tmp_path_factory.mktemp("manifests") / name)
        found |= {f"{name}-{case}": objects for case, objects in renders(k8s)}
    return found


@pytest.fixture
def deployment(rendered: dict[str, Objects]) -> dict[str, Any]:
    """A Deployment to be broken."""
    found = next(item for item in rendered["defaults-production-released"] if item["kind"] == "Deployment")
    return copy.deepcopy(found)


def test_no_other_combination_differs(projects: dict[str, Path]) -> None:
    """What the others are rendered from is that of the defaults, letter by letter."""

    def sources(name: str) -> dict[Path, bytes]:
        files = [path for part in ("k8s", "serving") for path in (projects[name] / part).rglob("*.yaml")]
        return {path.relative_to(projects[name]): path.read_bytes() for path in files}

    for name in projects.keys() - set(DIFFERING):
        assert sources(name) == sources("defaults"), name


def test_staging_is_smaller_and_apart(rendered: dict[str, Objects]) -> None:
    """One pod, no canary, no alert; an Application and an AppProject of its own, which reach its namespace alone."""
    staging, production = (rendered[f"staging-{name}-released"] for name in ("staging", "production"))
    assert {item["kind"] for item in production} - {item["kind"] for item in staging} == {
        "ConfigMap",  # the dashboard
        "PrometheusRule",
        "ServiceMonitor",
    }
    least = [item["spec"]["minReplicas"] for item in (*staging, *production) if "minReplicas" in item.get("spec", {})]
    assert least == [1, 2]
    assert not [name for name in rendered if re.match("(defaults|short-names)-.*staging", name)]
    objects = {item["kind"]: item for item in rendered["staging-argocd-staging"]}
    assert objects.keys() == {item["kind"] for item in rendered["staging-argocd"]}
    name = "breast-cancer-staging"
    assert {item["metadata"]["name"] for item in objects.values()} == {name}
    spec = objects["Application"]["spec"]
    assert (spec["source"]["targetRevision"], spec["source"]["path"]) == ("env/staging", "manifests")
    assert (spec["project"], spec["destination"]["namespace"]) == (name, name)
    assert [each["namespace"] for each in objects["AppProject"]["spec"]["destinations"]] == [name]


def test_all_is_rendered(rendered: dict[str, Objects]) -> None:
    """The loop below is not over nothing: each case has its objects, each component adds or changes some."""
    for name in DIFFERING:
        plain = rendered[f"{name}-production-released"]
        for component in ("canary", "gpu", "jobs", "request-log", "schedule"):
            assert rendered[f"{name}-production-{component}-released"] != plain
    for name in ("feature-store", "foreign"):
        kinds = {item["kind"] for item in rendered[f"{name}-production-feature-store-released"]}
        assert {"Deployment", "CronJob"} <= kinds
        redis = [item["kind"] for item in rendered[f"{name}-redis"]]
        assert redis == ["Service", "PersistentVolumeClaim", "Deployment", "NetworkPolicy"]
    assert "defaults-production-feature-store-released" not in rendered
    assert all(len(objects) > 2 for objects in rendered.values())


def test_a_release_marks_what_runs_the_model(rendered: dict[str, Objects]) -> None:
    """The server, the batch and what runs once a model; nothing that only asks the server or copies the archive."""
    marked = {
        name: [item for item in objects if "runs-model" in item["metadata"].get("annotations", {})]
        for name, objects in rendered.items()
    }
    found = {
        (item["kind"], item["metadata"]["name"].removeprefix(item["metadata"]["labels"]["app.kubernetes.io/name"]))
        for each in marked.values()
        for item in each
    }
    assert found == {("Deployment", ""), ("CronJob", "-batch"), ("Job", "-backfill")}
    assert {len(each) for name, each in marked.items() if "production" in name} == {1, 2}


def test_the_batch_is_one_part_and_says_how_many_there_are(rendered: dict[str, Objects]) -> None:
    """What a pod of an Indexed Job is told is the Job's own number; one is the whole table."""
    jobs = [
        item["spec"]["jobTemplate"]["spec"]
        for name, objects in rendered.items()
        for item in objects
        if name.endswith("-jobs-released") and item["metadata"]["name"].endswith("-batch")
    ]
    assert len(jobs) >= len(DIFFERING)
    for job in jobs:
        (container,) = job["template"]["spec"]["containers"]
        (count,) = [variable["value"] for variable in container["env"] if variable["name"] == "COMPLETIONS"]
        assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", int(count), 1)
        assert job["completions"] == 1 and job["backoffLimitPerIndex"] == 1 and "backoffLimit" not in job
        assert job["template"]["spec"]["restartPolicy"] == "Never", "as backoffLimitPerIndex needs"


def test_kubernetes_would_take_all_of_it(rendered: dict[str, Objects]) -> None:
    found = {name: problems(*objects) for name, objects in rendered.items()}
    assert {name: what for name, what in found.items() if what} == {}


def test_checkov_finds_nothing_but_what_is_meant(rendered: dict[str, Objects], tmp_path: Path) -> None:
    for name, objects in rendered.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
    found = checkov(tmp_path)
    assert {check: objects for check, objects in found.items() if check not in SUPPRESSED} == {}
    assert found.keys() == SUPPRESSED.keys(), "a suppression that is not needed any more"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"spec": {"template": {}}}, "selector"),
        ({"apiVersion": "apps/v2"}, "no schema"),
        ({"kind": "Rollouts"}, "no schema"),
        ({"replica": 2}, "replica"),
    ],
)
def test_a_broken_object_is_found(deployment: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    assert problems(deployment) == []
    [found] = problems(deployment | change)
    assert problem in found


def test_an_unsafe_object_is_found(deployment: dict[str, Any], rendered: dict[str, Objects], tmp_path: Path) -> None:
    pod = deployment["spec"]["template"]["spec"]
    pod["automountServiceAccountToken"] = True
    pod["hostNetwork"] = True
    del pod["containers"][0]["securityContext"]
    others = [item for item in rendered["defaults-production-released"] if item["kind"] != "Deployment"]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([deployment, *others]))
    assert {"CKV_K8S_38", "CKV_K8S_19", "CKV_K8S_20", "CKV_K8S_22", "CKV_K8S_28"} <= checkov(tmp_path).keys()
