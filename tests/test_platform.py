"""The shared platform of k8s/: what renders without a network."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from manifest_checks import checkov
from manifest_checks import problems as refusals
from platform_objects import (
    FOUND,
    PLATFORM,
    README,
    Object,
    argo_cd,
    containers,
    copied,
    filled,
    one,
    pods,
    problems,
    render,
    select,
    tenant,
    with_bucket,
)
from projects import ROOT


@pytest.fixture(scope="module")
def platform() -> list[Object]:
    return render(PLATFORM)


@pytest.fixture(scope="module")
def everything(platform: list[Object], tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """All that a cluster gets, with one tenant, and the Job that restores."""
    made = tmp_path_factory.mktemp
    restore = yaml.safe_load((PLATFORM / "mlflow/restore.yaml").read_text())
    return [*argo_cd(made("argo")), *platform, *tenant(platform, made("tenant")), restore]


def test_nothing_is_wrong(everything: list[Object], tmp_path: Path) -> None:
    assert {item["metadata"]["name"] for item in select(everything, "Namespace")} == {
        *("argocd", "mlflow", "monitoring", "m-churn-production")
    }
    assert len(containers(everything)) == 4
    assert problems(everything) == []
    bucket = with_bucket(tmp_path)
    assert problems(bucket) == []
    assert '"mlflow-artifacts"' not in json.dumps(bucket)  # neither the volume nor a mount


def test_kubernetes_would_take_all_of_it(everything: list[Object], tmp_path: Path) -> None:
    assert refusals(*everything, *with_bucket(tmp_path)) == []


def test_checkov_finds_nothing(everything: list[Object], tmp_path: Path) -> None:
    """What is meant as it is carries its reason, in an annotation `checkov.io/skip...` beside it."""
    reasons = [
        reason
        for item in everything
        for name, reason in item["metadata"].get("annotations", {}).items()
        if name.startswith("checkov.io/skip")
    ]
    assert reasons
    assert all(re.fullmatch(r"CKV_K8S_\d+=\w.{20,}", reason) for reason in reasons)
    (tmp_path / "rendered").mkdir()
    for name, objects in (("all", everything), ("bucket", with_bucket(tmp_path))):
        (tmp_path / f"rendered/{name}.yaml").write_text(yaml.safe_dump_all(objects))
    assert checkov(tmp_path / "rendered") == {}


def _server(objects: list[Object]) -> Object:
    return dict(one(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0])


BROKEN: dict[str, Callable[[list[Object]], object]] = {
    "Secret s": lambda all_: all_.append({"kind": "Secret", "metadata": {"name": "s"}}),
    "container mlflow: image is not pinned": lambda all_: one(all_, "Deployment")["spec"]["template"]["spec"][
        "containers"
    ][0].update(image="ghcr.io/mlflow/mlflow:latest"),
    "container mlflow: may gain privileges": lambda all_: _server(all_)["securityContext"].pop(
        "allowPrivilegeEscalation"
    ),
    "container mlflow: no bounds": lambda all_: _server(all_)["resources"].pop("limits"),
    "container mlflow: PGPASSWORD has a value": lambda all_: [
        variable.update(value="secret") for variable in _server(all_)["env"] if variable["name"] == "PGPASSWORD"
    ],
    "container pg-dump: may run as root": lambda all_: pods(one(all_, "CronJob"))[0]["securityContext"].pop(
        "runAsNonRoot"
    ),
    "namespace m-churn-production: pods are not restricted": lambda all_: one(all_, "Namespace", "m-churn-production")[
        "metadata"
    ].pop("labels"),
    "namespace monitoring: no quota or no defaults for it": lambda all_: [
        item.update(kind="ConfigMap")
        for item in select(all_, "ResourceQuota")
        if item["metadata"]["namespace"] == "monitoring"
    ],
    "namespace argocd: traffic is not denied by default": lambda all_: [
        item["spec"].update(policyTypes=["Ingress"])
        for item in select(all_, "NetworkPolicy", "default-deny")
        if item["metadata"]["namespace"] == "argocd"
    ],
}


@pytest.mark.parametrize("problem", BROKEN)
def test_broken_copies_are_found(problem: str, everything: list[Object]) -> None:
    broken = copy.deepcopy(everything)
    BROKEN[problem](broken)
    assert problems(broken) == [problem]


def test_secrets_are_those_that_the_readme_creates(everything: list[Object], tmp_path: Path) -> None:
    """Each reference has its command, with its keys, in its namespace; and no command makes what nothing reads."""
    wanted: dict[tuple[str, str], set[str]] = {("argocd", "github-app"): set(), ("monitoring", "grafana-admin"): set()}
    wanted["monitoring", "alert-receiver"] = set()  # test_platform_monitoring.py
    for item in [*everything, *with_bucket(tmp_path)]:
        text = json.dumps(item)
        namespace = item["metadata"].get("namespace", "")
        for name, key in re.findall(r'"secretKeyRef": {"key": "([\w-]+)", "name": "([\w-]+)"}', text):
            wanted.setdefault((namespace, key), set()).add(name)
        for name in re.findall(r'"(?:secretName|secretRef)": (?:{"name": )?"([\w-]+)"', text):
            wanted.setdefault((namespace, name), set())
    commands = re.findall(r"kubectl --namespace (\S+) create secret generic (\S+)((?:[^\\\n]*\\\n)*[^\\\n]*)", README)
    assert {(namespace, name) for namespace, name, _ in commands} == wanted.keys()
    for namespace, name, options in commands:
        keys = set(re.findall(r"--from-(?:literal|file)=([\w-]+)=", options))
        assert wanted[namespace, name] <= keys
    names = json.dumps(everything)
    assert '"appSecretName": "github-app"' in names
    assert '"existingSecret": "grafana-admin"' in names


def test_settings_reach_what_they_are_for(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    repository = "https://github.com/example/platform.git"
    (folder / "settings.env").write_text(
        f"ORGANISATION=example\nPLATFORM_REPOSITORY={repository}\nPLATFORM_REVISION=v1.2.3\n"
    )
    objects = render(folder)
    application_set = one(objects, "ApplicationSet", "tenants")["spec"]
    assert application_set["generators"][0]["scmProvider"]["github"]["organization"] == "example"
    source = application_set["template"]["spec"]["source"]
    assert (source["repoURL"], source["targetRevision"]) == (repository, "v1.2.3")
    assert one(objects, "AppProject", "tenants")["spec"]["sourceRepos"] == [repository]
    assert not re.search("your-organisation|invalid.example", json.dumps([*select(objects, "AppProject"), source]))


def test_every_environment_branch_of_the_fleet_is_found(platform: list[Object]) -> None:
    """Of the names that the template gives, all; of the others, none: they could take another's namespace."""
    scm = one(platform, "ApplicationSet")["spec"]["generators"][0]["scmProvider"]
    (condition,) = scm["filters"]
    assert scm["github"]["allBranches"]
    found = re.compile(condition["repositoryMatch"])
    longest = "a" + "b-" * 24 + "c"
    assert len(longest) == 50
    assert all(found.search(name) for name in ("x1", "churn-model", longest))
    assert not any(
        found.search(name) for name in ("Churn", "churn_model", "churn.model", "-churn", "churn-", longest + "d")
    )
    branch = re.compile(condition["branchMatch"])
    assert all(branch.search(name) for name in ("env/production", "env/staging"))
    others = ("main", "env/", "env/a-b", "env/production-next", "x/env/staging", "env/production/x")
    assert not any(branch.search(name) for name in others), "what waits to be promoted would be deployed"
    assert re.search(condition["labelMatch"], "gitops-mlops")
    topics = (ROOT / "{{cookiecutter.project_slug}}/src/gitops/project/repository.py").read_text()
    assert 'TOPIC = "gitops-mlops"' in topics, "make github gives the repository another topic"
    assert len(f"m-{longest}-production") <= 63, "a namespace's name has 63 characters at most"


def test_a_repository_reaches_its_own_namespace_alone(platform: list[Object], tmp_path: Path) -> None:
    made, name = tenant(platform, tmp_path), "m-churn-production"
    application = one(made, "Application")
    spec = application["spec"]
    assert spec["source"] == {"repoURL": FOUND[".url"], "targetRevision": "env/production", "path": "manifests"}
    assert (application["metadata"]["name"], spec["project"], spec["destination"]["namespace"]) == (name,) * 3
    assert application["metadata"]["namespace"] == "argocd"
    project = one(made, "AppProject")
    assert (project["metadata"]["name"], project["metadata"]["namespace"]) == (name, "argocd")
    assert project["spec"]["sourceRepos"] == [FOUND[".url"]]
    assert [destination["namespace"] for destination in project["spec"]["destinations"]] == [name]
    assert not project["spec"].get("clusterResourceWhitelist")
    kinds = {entry["kind"] for entry in project["spec"]["namespaceResourceWhitelist"]}
    assert "Deployment" in kinds
    assert not kinds & {"*", "Secret", "Role", "RoleBinding", "ResourceQuota", "LimitRange", "Namespace", "Application"}


def test_one_step_makes_a_tenant_and_its_application(platform: list[Object], tmp_path: Path) -> None:
    """The Application comes after its AppProject and its namespace, and neither tenant nor prune takes it along."""
    made = tenant(platform, tmp_path)
    annotations = {item["kind"]: item["metadata"].get("annotations", {}) for item in made}
    waves = {kind: int(found.get("argocd.argoproj.io/sync-wave", "0")) for kind, found in annotations.items()}
    assert waves.pop("Application") > max(waves.values())
    for kind in ("Application", "Namespace"):
        assert annotations[kind]["argocd.argoproj.io/sync-options"] == "Delete=false,Prune=false"
    # Argo CD waits between waves for the health of what has one (gitops-engine/pkg/health and resource_customizations).
    without_health = {"Application", "AppProject", "LimitRange", "Namespace", "NetworkPolicy", "ResourceQuota", "Role"}
    assert {item["kind"] for item in made} == without_health
    scm = one(platform, "ApplicationSet")["spec"]["generators"][0]["scmProvider"]
    assert scm["requeueAfterSeconds"] == 180


def test_a_rollback_is_never_held_up(projects: dict[str, Path], platform: list[Object], tmp_path: Path) -> None:
    """Whoever follows a branch retries its newest commit, and as a tenant as in a cluster without the platform."""
    alone = [one(render(projects["staging"] / "k8s" / name), "Application") for name in ("argocd", "argocd-staging")]
    inside = one(tenant(platform, tmp_path), "Application")
    for application in [*alone, inside]:
        assert application["spec"]["syncPolicy"] == {
            "automated": {"prune": True, "selfHeal": True},
            "syncOptions": ["ServerSideApply=true"],
            "retry": {"limit": 3, "refresh": True, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "1m"}},
        }
        subscribed = [name for name in application["metadata"]["annotations"] if name.startswith("notifications.")]
        assert subscribed == [
            f"notifications.argoproj.io/subscribe.{trigger}.github" for trigger in ("live", "not-applied", "not-live")
        ]
    assert filled(one(platform, "ApplicationSet"))["spec"]["syncPolicy"]["retry"]["refresh"]


@pytest.mark.parametrize("part", ["mlflow", "monitoring"])
def test_a_part_can_be_left_out(part: str, platform: list[Object], tmp_path: Path) -> None:
    """By its line, as README.md says."""
    path = copied(tmp_path) / "kustomization.yaml"
    text = path.read_text()
    assert text.count(f"  - {part}\n") == README.count(f"`{part}` in `k8s/kustomization.yaml`") == 1
    path.write_text(text.replace(f"  - {part}\n", ""))
    rest = render(path.parent)
    kept = [item for item in platform if part not in (item["metadata"]["name"], item["metadata"].get("namespace"))]
    assert rest == kept != platform


def test_who_made_an_object_is_told_by_the_annotation_that_policies_read(everything: list[Object]) -> None:
    settings = one(everything, "ConfigMap", "argocd-cm")["data"]
    assert settings["application.resourceTrackingMethod"] == "annotation"  # a label could be written by a repository


def test_every_namespace_asks_dns_by_both_ways(everything: list[Object]) -> None:
    """The cluster's pods in kube-system, and NodeLocal DNSCache at its address on the node."""
    policies = select(everything, "NetworkPolicy", "dns")
    namespaces = {item["metadata"]["name"] for item in select(everything, "Namespace")}
    assert {policy["metadata"]["namespace"] for policy in policies} == namespaces
    for policy in policies:
        (rule,) = policy["spec"]["egress"]
        assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]
        assert [(entry["port"], entry["protocol"]) for entry in rule["ports"]] == [(53, "UDP"), (53, "TCP")]


def test_what_a_project_deploys_is_allowed(projects: dict[str, Path], platform: list[Object], tmp_path: Path) -> None:
    allowed = one(tenant(platform, tmp_path), "AppProject")["spec"]["namespaceResourceWhitelist"]
    deployed = [
        item for name in ("production", "staging") for item in render(projects["staging"] / "k8s/overlays" / name)
    ]
    groups = {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in deployed}
    assert ("apps", "Deployment") in groups
    assert groups <= {(entry["group"], entry["kind"]) for entry in allowed}


def test_tenants_make_only_what_their_project_allows(platform: list[Object], tmp_path: Path) -> None:
    """And the names of both Applications do not collide: a model's starts with m- (the test above)."""
    allowed = one(platform, "AppProject", "tenants")["spec"]
    kinds = {entry["kind"] for entry in allowed["clusterResourceWhitelist"] + allowed["namespaceResourceWhitelist"]}
    assert {item["kind"] for item in tenant(platform, tmp_path)} == kinds
    assert filled(one(platform, "ApplicationSet"))["metadata"]["name"] == "tenant-m-churn-production"


def test_projects_name_what_they_allow(platform: list[Object]) -> None:
    """No AppProject allows every kind, every repository or every namespace."""
    for project in select(platform, "AppProject"):
        spec = {key: value for key, value in project["spec"].items() if not key.endswith("Blacklist")}
        assert "'*'" not in str(spec), project["metadata"]["name"]


def test_versions_are_exact(platform: list[Object]) -> None:
    (application,) = select(platform, "Application")
    assert re.fullmatch(r"\d+\.\d+\.\d+", application["spec"]["source"]["targetRevision"])
    server = _server(platform)["image"]
    locked = (ROOT / "requirements/mlflow.txt").read_text()
    assert f"mlflow=={re.findall(r':v([0-9.]+)', server)[0]} " in locked, "the test below runs another MLflow"
