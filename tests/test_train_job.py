"""The TrainJob of `make train-on-cluster`: Kubeflow Trainer's own models, JobSet's names, and what a pod may do.

What Trainer and JobSet refuse is in their webhooks, read in their sources (kubeflow/trainer: pkg/webhooks and
pkg/runtime/framework/plugins; kubernetes-sigs/jobset: pkg/webhooks).
"""

from __future__ import annotations

import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob as TrainJob
from manifest_checks import checkov, problems
from overlays import copied, released
from platform_objects import PLATFORM, one, render, tenant
from train_jobs import COMMIT, CONTAINER, IMAGE, JOB, PET, pod, train_job

Object = dict[str, Any]

#: What the podspec of a TrainJob could say until 2.1, and its runtime too: https://github.com/kubeflow/trainer/pull/3309
REMOVED = ("podTemplateOverrides", "labels", "annotations")

#: What checkov finds in a pod by itself, and is meant so.
MEANT = {
    "CKV_K8S_8": "no liveness probe: it ends with the training",
    "CKV_K8S_9": "no readiness probe: nothing asks it",
    "CKV_K8S_11": "no limit on the CPU: a throttled worker is late for no one's gain",
    "CKV_K8S_21": "the namespace is kubectl's",
    "CKV_K8S_38": "no token is its ServiceAccount's setting",
    "CKV_K8S_40": "1000 is the image's user",
}


@pytest.fixture(params=["defaults", "feature-store", "foreign", "short-names", "staging"])
def rendered(request: pytest.FixtureRequest, projects: dict[str, Path]) -> tuple[Path, Object]:
    return projects[request.param], train_job(projects[request.param], queue="night")


def complete(job: Object) -> bool:
    """Tell whether Trainer's models know every field: they drop those that they do not know."""
    made = TrainJob.from_dict(job)
    assert made is not None
    return bool(made.to_dict() == job)


def test_its_fields_are_those_of_trainers_models(rendered: tuple[Path, Object]) -> None:
    assert version("kubeflow-trainer-api") >= "2.2"
    _, job = rendered
    assert complete(job)
    assert not job["spec"].keys() & {*REMOVED}
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert job["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "ClusterTrainingRuntime",
        "name": "torch-distributed",
    }
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 2, IMAGE)
    assert {"name": "COMMIT", "value": COMMIT} in trainer["env"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "night"


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(podTemplateOverrides=[]),
        lambda job: job["spec"]["runtimePatches"][0].update(spec={}),
        lambda job: patch(job)["spec"].update(hostNetwork=True),
        lambda job: patch(job)["spec"]["containers"][0].update(image="x"),
    ],
)
def test_a_field_that_trainer_does_not_know_is_found(change: Any, projects: dict[str, Path]) -> None:
    job = train_job(projects["defaults"])
    assert complete(job)
    change(job)
    assert not complete(job)


def patch(job: Object) -> Object:
    (only,) = job["spec"]["runtimePatches"]
    (replicated,) = only["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template: Object = replicated["template"]["spec"]["template"]
    return template


def test_trainers_webhook_lets_it_in(rendered: tuple[Path, Object]) -> None:
    """Domain-prefixed managers, Kueue's not among them; the runtime's job and container; variables of its own only."""
    _, job = rendered
    (only,) = job["spec"]["runtimePatches"]
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[\w.~-]+", only["manager"])
    assert not only["manager"].startswith("kueue")
    (replicated,) = only["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == JOB
    assert [container["name"] for container in patch(job)["spec"]["containers"]] == [CONTAINER]
    assert "env" not in patch(job)["spec"]["containers"][0]
    assert not {variable["name"] for variable in job["spec"]["trainer"]["env"]} & {*PET}


@pytest.mark.parametrize("slug", ["x1", "a" * 27, "a" * 28, "a" * 40, "-".join(["a"] * 14) + "-bcde"])
def test_jobset_takes_the_name_of_the_thousandth_pod(slug: str, projects: dict[str, Path], tmp_path: Path) -> None:
    """`<name>-node-0-999-<5 characters>` is a DNS label."""
    project = tmp_path / "project"
    shutil.copytree(projects["defaults"] / "k8s/training", project / "k8s/training")
    shutil.copytree(projects["defaults"] / "src", project / "src")
    manifest = project / "k8s/training/trainjob.yaml"
    manifest.write_text(manifest.read_text().replace("breast-cancer", slug))
    name = train_job(project)["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", f"{name}-node-0-999-abcde")
    assert name.endswith(f"-train-{COMMIT[:12]}") and "--" not in name
    assert name.startswith(slug) == (len(slug) <= 27)


def test_a_pod_is_as_restricted_as_the_other_jobs(rendered: tuple[Path, Object]) -> None:
    project, job = rendered
    template = pod(job)
    jobs = yaml.safe_load((project / "k8s/components/jobs/pod.yaml").read_text())
    other = jobs["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert template["spec"]["securityContext"] == other["securityContext"]
    (container,), (usual,) = template["spec"]["containers"], other["containers"]
    assert container["securityContext"] == usual["securityContext"]
    assert template["spec"]["serviceAccountName"] == other["serviceAccountName"]
    account = yaml.safe_load((project / "k8s/base/serviceaccount.yaml").read_text())
    assert account["metadata"]["name"] == other["serviceAccountName"]
    assert account["automountServiceAccountToken"] is False, "a TrainJob cannot say it for the pod"
    assert all("hostPath" not in volume for volume in template["spec"]["volumes"])
    sources = [volume["projected"]["sources"] for volume in template["spec"]["volumes"] if "projected" in volume]
    settings = yaml.safe_load((project / "k8s/components/jobs/kustomization.yaml").read_text())["configMapGenerator"]
    secret = next(volume["secret"] for volume in other["volumes"] if "secret" in volume)
    assert sources == [
        [
            {"configMap": {"name": settings[0]["name"]}},
            {"secret": {"name": secret["secretName"], "optional": True}},
        ]
    ]


def test_kubernetes_would_take_its_pod(rendered: tuple[Path, Object]) -> None:
    assert problems(as_pod(rendered[1])) == []


def as_pod(job: Object, name: str = "node") -> Object:
    made = pod(job)
    return {"apiVersion": "v1", "kind": "Pod", **made, "metadata": {"name": name, **made["metadata"]}}


def test_checkov_finds_nothing_but_what_is_meant(projects: dict[str, Path], tmp_path: Path) -> None:
    """In two pods: it has to have looked at something (manifest_checks.py)."""
    pods = [as_pod(train_job(projects[name]), name) for name in ("defaults", "foreign")]
    for name in ("defaults", "foreign"):  # with their network policies: a pod without one is found
        shutil.copy(projects[name] / "k8s/components/jobs/networkpolicy.yaml", tmp_path / f"{name}.yaml")
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(pods))
    assert checkov(tmp_path).keys() == MEANT.keys()
    for made in pods:
        del made["spec"]["containers"][0]["securityContext"]
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(pods))
    assert {"CKV_K8S_20", "CKV_K8S_22", "CKV_K8S_28"} <= checkov(tmp_path).keys()


def test_argo_cd_does_not_own_it(rendered: tuple[Path, Object], projects: dict[str, Path], tmp_path: Path) -> None:
    """No release holds one, nor may: what Argo CD made would be changed back, and made anew when it is deleted."""
    project, job = rendered
    assert "argocd" not in str(job)
    k8s = copied(project, tmp_path / "project")
    for overlay in sorted(path.parent for path in k8s.glob("overlays/*/kustomization.yaml")):
        made = released(overlay, "jobs")
        assert not [item for item in made if item["kind"] == "TrainJob"]
        selectors = [item["spec"]["selector"] for item in made if item["kind"] == "Service"]
        assert not [each for each in selectors if each.items() <= pod(job)["metadata"]["labels"].items()]
    allowed = one(render(project / "k8s/argocd"), "AppProject")["spec"]["namespaceResourceWhitelist"]
    assert "TrainJob" not in str(allowed)


def test_the_role_is_for_train_jobs_alone(tmp_path: Path) -> None:
    """And it is nobody's until the platform's owner binds it."""
    platform = render(PLATFORM)
    made = tenant(platform, tmp_path / "tenant")
    role = one(made, "Role")
    assert role["rules"] == [
        {
            "apiGroups": ["trainer.kubeflow.org"],
            "resources": ["trainjobs"],
            "verbs": ["create", "delete", "get", "list", "watch"],
        }
    ]
    assert role["metadata"]["name"] == "train" and role["metadata"]["namespace"].startswith("m-")
    assert not [item for item in made if item["kind"].endswith("Binding")]
    kinds = one(made, "AppProject")["spec"]["namespaceResourceWhitelist"]
    assert not [entry for entry in kinds if entry["group"] in ("rbac.authorization.k8s.io", "trainer.kubeflow.org")]
    tenants = one(platform, "AppProject", "tenants")["spec"]
    assert "RoleBinding" not in str(tenants) and not [
        entry for entry in tenants["clusterResourceWhitelist"] if entry["kind"] != "Namespace"
    ]
