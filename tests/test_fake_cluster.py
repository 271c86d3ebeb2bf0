"""The stand-in of a cluster refuses and holds what a real one does: kube-apiserver 1.34, Argo CD 3.5, November 2026."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cluster
import fake_cluster_api as api
import fake_cluster_argo_cd as argo_cd
import fake_cluster_pods as pods
import pytest
from cluster_bench import GOOD, OTHER, PATIENT, REFRESHED, SERVICE, TENANT, Bench, Object, config, deployment
from fake_cluster_state import Cluster, Refused


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    clock = [0.0]
    monkeypatch.setattr(Cluster, "now", property(lambda cluster: clock[0]))
    made = Bench(tmp_path / "repository", clock)
    (made.folder / "manifests").mkdir(parents=True)
    made.git("init --quiet --initial-branch=main")
    made.cluster.clear("kind")
    for kind in ("AppProject", "Application", "ApplicationSet"):
        api.apply(made.cluster, api.definition("argoproj.io", kind))
    made.cluster.loaded |= {"good:1": GOOD, "other:1": OTHER}
    return made


@pytest.fixture
def released(bench: Bench) -> Bench:
    """A release that answers."""
    bench.follow(REFRESHED)
    bench.commit(deployment(GOOD, "good:1"), SERVICE, config())
    bench.at(0)
    assert bench.at(20)["health"] == {"status": "Healthy"}
    assert bench.answering() == GOOD
    return bench


def with_hook(objects: list[Object]) -> None:
    template = copy.deepcopy(objects[0]["spec"]["template"])
    template["spec"]["restartPolicy"] = "Never"
    metadata = {"name": "ask", "annotations": {"argocd.argoproj.io/hook": "PostSync"}}
    objects.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}})


def with_wave(objects: list[Object]) -> None:
    objects[-1]["metadata"]["annotations"] = {"argocd.argoproj.io/sync-wave": "1"}


def with_prune(objects: list[Object]) -> None:
    objects.pop()


def broken(model: str = OTHER, **spec: Any) -> list[Object]:
    """A release of a model whose image holds another."""
    return [deployment(model, "good:1", **spec), SERVICE, config()]


def test_rollback_is_applied_at_once_where_nothing_waits(released: Bench) -> None:
    released.commit(*broken())
    released.at(100, look=True)
    back = released.commit(deployment(GOOD, "good:1"), SERVICE, config())
    said = released.at(125, look=True)
    assert said["sync"] == {"status": "Synced", "revision": back}
    assert said["health"] == {"status": "Healthy"}


@pytest.mark.parametrize("change", [with_hook, with_wave, with_prune])
def test_rollback_is_held_by_what_a_sync_waits_for(change: Callable[[list[Object]], None], bench: Bench) -> None:
    """A hook, a wave, and pruning last, which is a wave too: until the pods' deadline and the first retry are over."""
    bench.follow(REFRESHED, "PruneLast=true")
    before = [deployment(GOOD, "good:1"), SERVICE, config()]
    bench.commit(*before)
    bench.at(0)
    bench.at(20)
    release = broken()
    change(release)
    bench.commit(*release)
    bench.at(100, look=True)
    back = bench.commit(*before)
    said = bench.at(125, look=True)
    assert said["operationState"]["phase"] == "Running"
    assert "waiting for healthy state of Deployment/tenant/server" in said["operationState"]["message"]
    assert bench.answering() == GOOD
    assert bench.applied_at(back, 130, 600) == pytest.approx(100 + 180 + 20, abs=10)


def test_crashing_release_holds_its_rollback_for_18_minutes(bench: Bench) -> None:
    """As measured: a hook, the default deadline of 600 s, five retries of the same commit."""
    bench.follow(PATIENT)
    before = [deployment(GOOD, "good:1"), SERVICE, config()]
    bench.commit(*before)
    bench.at(0)
    bench.at(20)
    release = broken(progressDeadlineSeconds=600)
    with_hook(release)
    bench.commit(*release)
    bench.at(100, look=True)
    back = bench.commit(*before)
    assert bench.applied_at(back, 125, 2000) == pytest.approx(125 + 18 * 60, abs=60)


def test_refused_kind_holds_the_next_commit_for_34_minutes(bench: Bench) -> None:
    """As measured: ten retries of the same commit, up to five minutes apart."""
    bench.follow({"limit": 10, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "5m"}})
    before = [deployment(GOOD, "good:1"), SERVICE]
    bench.commit(*before)
    bench.at(20)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "more"}}
    bench.commit(*before, account)
    bench.at(100, look=True)
    following = bench.commit(*before, config())
    assert bench.applied_at(following, 125, 4000) == pytest.approx(125 + 34 * 60, abs=60)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "more"}},
            "resource :ServiceAccount is not permitted in project tenant",
        ),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "more"}},
            "resource :Namespace is not permitted in project tenant",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more", "namespace": "kube-system"}},
            "namespace kube-system is not permitted in project 'tenant'",
        ),
        (
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "more"}},
            'no matches for kind "Rollout" in version "argoproj.io/v1alpha1"',
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_commit_is_refused_as_a_whole(manifest: Object, reason: str, released: Bench) -> None:
    commit = released.commit(deployment(GOOD, "good:1"), SERVICE, config("another"), manifest)
    said = released.at(100, look=True)
    assert said["sync"] == {"status": "OutOfSync", "revision": commit}
    [result] = said["operationState"]["syncResult"]["resources"]
    assert (result["status"], result["message"]) == ("SyncFailed", reason)
    assert f"/ConfigMap/{TENANT}/another" not in released.cluster.objects
    assert f"/ConfigMap/{TENANT}/settings" in released.cluster.objects, "nothing is pruned either"


def test_failed_commit_is_not_tried_again_after_the_last_retry(released: Bench) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "more"}}
    released.commit(account)
    released.at(100, look=True)
    for second in range(110, 400, 10):
        said = released.at(second)
    assert said["operationState"]["phase"] == "Failed"
    assert said["operationState"]["retryCount"] == 3
    assert released.at(2000, look=True)["operationState"] == said["operationState"]


def test_unknown_field_refuses_the_commit_as_a_whole(released: Bench) -> None:
    """Argo CD's dry run finds it."""
    wrong = copy.deepcopy(SERVICE)
    wrong["metadata"]["name"] = "wrong"
    wrong["spec"]["prots"] = []
    released.commit(deployment(GOOD, "good:1"), SERVICE, config("another"), wrong)
    [result] = released.at(100, look=True)["operationState"]["syncResult"]["resources"]
    assert (result["name"], result["status"]) == ("wrong", "SyncFailed")
    assert "'prots' was unexpected" in result["message"]
    assert f"/ConfigMap/{TENANT}/another" not in released.cluster.objects


def test_api_refuses_one_object_and_the_others_are_applied(bench: Bench) -> None:
    bench.follow(REFRESHED, destinations=[{"namespace": TENANT}, {"namespace": "gone"}])
    gone = {**config(), "metadata": {"name": "settings", "namespace": "gone"}}
    bench.commit(config("another"), gone)
    said = bench.at(0)["operationState"]
    assert said["phase"] == "Running"
    assert said["message"] == "one or more objects failed to apply"
    results = {item["name"]: (item["status"], item["message"]) for item in said["syncResult"]["resources"]}
    assert results == {"another": ("Synced", ""), "settings": ("SyncFailed", 'namespaces "gone" not found')}
    assert f"/ConfigMap/{TENANT}/another" in bench.cluster.objects


def test_application_without_its_project_waits_for_the_next_poll(bench: Bench) -> None:
    bench.follow(REFRESHED)
    bench.commit(config())
    project = bench.cluster.objects.pop(f"argoproj.io/AppProject/argocd/{TENANT}")
    said = bench.at(0)
    assert said["conditions"][0]["message"] == "Application referencing project tenant which does not exist"
    bench.cluster.objects[f"argoproj.io/AppProject/argocd/{TENANT}"] = project
    assert bench.at(100)["sync"] == {"status": "Unknown"}
    assert bench.at(130)["sync"]["status"] == "Synced"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"sourceRepos": ["https://github.com/example/churn.git"]}, "is not permitted in project 'tenant'"),
        ({"destinations": [{"namespace": "m-*"}]}, "application destination is not permitted in project 'tenant'"),
    ],
)
def test_project_refuses_other_repositories_and_namespaces(part: Object, reason: str, bench: Bench) -> None:
    bench.follow(REFRESHED, **part)
    bench.commit(config())
    assert reason in bench.at(0)["conditions"][0]["message"]
    assert f"/ConfigMap/{TENANT}/settings" not in bench.cluster.objects


def test_what_is_changed_or_deleted_is_healed(released: Bench) -> None:
    service, deleted = f"/Service/{TENANT}/server", f"/ConfigMap/{TENANT}/settings"
    released.cluster.objects[service] = {**released.cluster.objects[service], "spec": {"selector": {"app": "none"}}}
    api.delete(released.cluster, deleted)
    released.at(30)
    assert released.cluster.objects[service]["spec"] == SERVICE["spec"]
    assert deleted in released.cluster.objects


def test_what_is_not_in_the_branch_any_more_is_pruned(released: Bench) -> None:
    released.commit(deployment(GOOD, "good:1"), SERVICE)
    assert released.at(100, look=True)["sync"]["status"] == "Synced"
    assert f"/ConfigMap/{TENANT}/settings" not in released.cluster.objects


def test_branch_is_looked_at_each_minute_as_argocd_cm_says(released: Bench) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    api.apply(released.cluster, {**settings, "data": {"timeout.reconciliation": "60s"}})
    released.at(100)
    commit = released.commit(deployment(GOOD, "good:1"), SERVICE)
    assert released.at(150)["sync"]["revision"] != commit
    assert released.at(170)["sync"] == {"status": "Synced", "revision": commit}


@pytest.mark.parametrize("image", ["good:1", "unknown:1"], ids=["another model", "no such image"])
def test_pods_that_cannot_start_leave_those_before(image: str, released: Bench) -> None:
    released.commit(deployment(OTHER, image), SERVICE, config())
    released.at(100, look=True)
    assert released.at(270)["health"] == {"status": "Progressing"}
    assert released.at(290)["health"] == {"status": "Degraded"}
    assert released.answering() == GOOD


def test_new_pods_answer_once_they_have_started(released: Bench) -> None:
    released.commit(deployment(OTHER, "other:1"), SERVICE, config())
    assert released.at(100, look=True)["health"] == {"status": "Progressing"}
    assert released.answering() == GOOD
    assert released.at(110)["health"] == {"status": "Healthy"}
    assert released.answering() == OTHER


def test_privileged_pods_are_refused(released: Bench) -> None:
    release = broken(GOOD)
    release[0]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
    released.commit(*release)
    assert released.at(100, look=True)["sync"]["status"] == "Synced"
    [condition] = pods.status(released.cluster, released.cluster.objects[f"apps/Deployment/{TENANT}/server"])[
        "conditions"
    ]
    assert 'violates PodSecurity "restricted:latest": privileged' in condition["message"]
    assert released.at(300)["health"] == {"status": "Degraded"}


def test_objects_need_their_namespace(bench: Bench) -> None:
    with pytest.raises(Refused, match='namespaces "none" not found'):
        api.apply(bench.cluster, {**config(), "metadata": {"name": "settings", "namespace": "none"}})


def test_autoscaler_without_metrics_is_degraded_unless_argo_cd_is_told_otherwise(released: Bench) -> None:
    scaler: Object = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    scaler["metadata"] = {"name": "server", "namespace": TENANT}
    released.commit(deployment(OTHER, "other:1"), SERVICE, config())
    released.at(100, look=True)
    assert pods.health(released.cluster, scaler) == "Degraded"
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    api.apply(released.cluster, {**settings, "data": {pods.JUDGED: "return ..."}})
    assert pods.health(released.cluster, scaler) == "Healthy"


def test_set_whose_project_comes_later_waits(bench: Bench) -> None:
    bench.follow(REFRESHED)
    bench.commit(config())
    application = bench.cluster.objects.pop(f"argoproj.io/Application/argocd/{TENANT}")
    project = bench.cluster.objects.pop(f"argoproj.io/AppProject/argocd/{TENANT}")
    item: Object = {"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet"}
    item["metadata"] = {"name": "tenants", "namespace": "argocd"}
    template = {"metadata": {"name": "{{ .values.name }}"}, "spec": application["spec"]}
    item["spec"] = {"generators": [{"list": {"elements": [{"values": {"name": TENANT}}]}}], "template": template}
    api.apply(bench.cluster, item)
    argo_cd.reconcile(bench.cluster)
    bench.cluster.objects[f"argoproj.io/AppProject/argocd/{TENANT}"] = project
    bench.clock[0] = 170
    argo_cd.reconcile(bench.cluster)
    assert f"argoproj.io/Application/argocd/{TENANT}" not in bench.cluster.objects
    bench.clock[0] = 190
    argo_cd.reconcile(bench.cluster)
    assert bench.at(190)["sync"]["status"] == "Synced"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("kubectl delete pods --all", "kubectl delete pods --all: not known here"),
        ("kubectl get application none --output json", 'Error from server: applications "none" not found'),
        ("kind load docker-image none:1 --name kind", "image: 'none:1' not present locally"),
        ("kind load docker-image none:1 --name other", "no nodes found for cluster 'other'"),
        ("kubectl apply --filename https://example.org/all.yaml", "not known here"),
    ],
)
def test_what_is_not_there_is_refused(
    command: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cluster.install(tmp_path / "bin")
    monkeypatch.setenv("FAKE_CLUSTER", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["kind", "create", "cluster", "--name", "kind"], check=True)
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert reason in done.stderr
