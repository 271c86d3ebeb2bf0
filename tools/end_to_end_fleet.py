"""The platform's fleet (k8s/fleet) in the cluster of `make end-to-end`: a second repository, and what it may not do.

GitHub is not asked here. Its place in the ApplicationSet is taken by a list with what it answers: one repository, one
branch.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import cluster
import cluster_argo_cd
import cluster_service
import demo
import end_to_end_release
import yaml

PLATFORM = demo.DEMO / "platform"  # the owner's copy of this repository, as far as Argo CD reads it
NOT_HERE = {"mlflow", "monitoring"}  # parts of the platform that are left out: their names are their namespaces'
SECOND = "second"
TENANT = (
    f"m-{SECOND}-production"  # the ApplicationSet's name for the repository's Application, AppProject and namespace
)
CLONE = demo.DEMO / SECOND
ATTACKS = demo.TEMPLATE / "tools/attacks"
MADE_WITHIN = 60  # seconds from a found repository to its objects in its namespace
REFUSED_WITHIN = 180  # seconds until Argo CD has tried a commit: a sync that retries takes it in at its next attempt


def second_repository(address: str) -> None:
    """Apply the fleet, which finds a repository: it must have its namespace and its release in one step."""
    demo.step("make the platform owner's repository", run=lambda: platform_repository(address))
    demo.step(
        "make a second repository, whose production needs one pod",
        "rm -rf ../second ../second.git && git clone --quiet --bare ../origin.git ../second.git",
        "git clone --quiet --branch env/production ../second.git ../second",
        "git -C ../second rm -q manifests/autoscaling_v2_horizontalpodautoscaler_*.yaml",
        "git -C ../second commit --quiet -m 'One pod' && git -C ../second push --quiet origin env/production",
    )
    demo.step("apply the fleet", run=lambda: cluster.apply(fleet(address)))
    demo.step("see its namespace and its release", run=released_there)


def platform_repository(address: str) -> None:
    """Write platform.git with this checkout's k8s/, whose settings name `address`."""
    for path in (PLATFORM, bare := PLATFORM.with_suffix(".git")):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(demo.TEMPLATE / "k8s", PLATFORM / "k8s")
    settings = PLATFORM / "k8s/settings.env"
    own = {"PLATFORM_REPOSITORY": f"{address}/{bare.name}", "PLATFORM_REVISION": "main"}
    lines = [line.partition("=") for line in settings.read_text(encoding="utf-8").splitlines()]
    text = "".join(f"{name}{equals}{own.get(name, value)}\n" for name, equals, value in lines)
    settings.write_text(text, encoding="utf-8")
    git = ("git", "-C", str(PLATFORM))
    cluster.output("git", "init", "--quiet", "--initial-branch=main", str(PLATFORM))
    cluster.output(*git, "add", ".")
    cluster.output(*git, "commit", "--quiet", "--message", "The platform")
    cluster.output("git", "clone", "--quiet", "--bare", str(PLATFORM), str(bare))


def fleet(address: str) -> list[dict[str, Any]]:
    """Return the objects of the platform but for NOT_HERE, with a list in place of GitHub."""
    rendered = yaml.safe_load_all(cluster.output("kubectl", "kustomize", str(PLATFORM / "k8s")))
    objects = [
        item for item in rendered if not {item["metadata"]["name"], item["metadata"].get("namespace")} & NOT_HERE
    ]
    found = {
        "repository": SECOND,
        "branch": "env/production",
        "url": f"{address}/{SECOND}.git",
        "values": {"name": TENANT},
    }
    [tenants] = [item for item in objects if item["kind"] == "ApplicationSet"]
    tenants["spec"]["generators"] = [{"list": {"elements": [found]}}]
    return objects


def released_there() -> None:
    """Wait for the release in its namespace. Raises SystemExit where it is not applied MADE_WITHIN seconds from now."""
    began = time.monotonic()
    commit = end_to_end_release.head(CLONE.with_suffix(".git"))
    cluster_argo_cd.wait(TENANT, began + MADE_WITHIN, commit, healthy=False)
    print(f"namespace and release were there after {time.monotonic() - began:.1f} s", flush=True)
    deadline = began + end_to_end_release.TIMEOUT
    cluster_argo_cd.wait(TENANT, deadline, commit, healthy=True)
    released = end_to_end_release.production()
    cluster_service.wait_for_answer(TENANT, released.model, released.version, deadline)


def attacked() -> None:
    """Have the second repository try to open its namespace: none of it may come through, while its model answers."""
    before = default_deny()
    demo.step("try to open the namespace", run=lambda: attack("kinds_of_its_own.yaml", "ValidatingAdmissionPolicy"))
    demo.step("see that no privileged pod came", run=no_privileged_pods)
    demo.step("reach for the cluster", run=lambda: attack("other_kinds.yaml", "is not permitted in project"))
    if (after := default_deny()) != before:
        raise SystemExit(f"the policy was {before} and is {after}")
    demo.step("take it back", run=lambda: push("No attack", None))
    demo.step("see the release alone", run=released_again)


def attack(file: str, reason: str) -> None:
    """Push a file's objects with the release; wait until all but the Deployment are refused for `reason`.

    Raises SystemExit where one is not, and where the release's model does not answer.
    """
    objects = yaml.safe_load_all((ATTACKS / file).read_text(encoding="utf-8"))
    wanted = {f"{item['kind']}/{item['metadata']['name']}" for item in objects if item["kind"] != "Deployment"}
    commit = push(f"Attack by {file}", ATTACKS / file)
    released, deadline = end_to_end_release.production(), time.monotonic() + REFUSED_WITHIN
    while True:
        said = cluster_argo_cd.status(TENANT)
        refused = {name for name, why in cluster_argo_cd.refused(said, commit).items() if reason in why}
        cluster_service.still_answers(TENANT, released.model, released.version)
        if wanted <= refused:
            print("refused:", *sorted(refused), flush=True)
            return
        if cluster_argo_cd.applied(said, commit) or time.monotonic() > deadline:
            missing = ", ".join(sorted(wanted - refused))
            raise SystemExit(f"not refused: {missing}; Argo CD says {cluster_argo_cd.summary(said)!r}")
        time.sleep(cluster_argo_cd.PAUSE)


def push(message: str, objects: Path | None) -> str:
    """Push the release with the attack's objects, or without; return the commit."""
    target = CLONE / "manifests/attack.yaml"
    target.unlink(missing_ok=True)
    if objects:
        shutil.copy(objects, target)
    git = ("git", "-C", str(CLONE))
    cluster.output(*git, "add", "--all")
    cluster.output(*git, "commit", "--quiet", "--message", message)
    cluster.output(*git, "push", "--quiet", "origin", "env/production")
    cluster_argo_cd.look(TENANT)
    return cluster.output(*git, "rev-parse", "HEAD")


def no_privileged_pods() -> None:
    """Wait until the cluster says why the privileged Deployment has no pods. Raises SystemExit."""
    deadline = time.monotonic() + REFUSED_WITHIN
    while True:
        found = get("deployment", "privileged")
        conditions = found.get("status", {}).get("conditions", [])
        said = {entry["type"]: entry.get("message", "") for entry in conditions}
        if "violates PodSecurity" in said.get("ReplicaFailure", ""):
            print(said["ReplicaFailure"], flush=True)
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"no word that privileged pods are refused: {said}")
        time.sleep(cluster_argo_cd.PAUSE)


def released_again() -> None:
    """Wait until the release without the attacks is applied and healthy, and answers. Raises SystemExit."""
    deadline = time.monotonic() + end_to_end_release.TIMEOUT
    cluster_argo_cd.wait_for_sync(TENANT, end_to_end_release.head(CLONE.with_suffix(".git")), deadline)
    released = end_to_end_release.production()
    cluster_service.wait_for_answer(TENANT, released.model, released.version, deadline)


def default_deny() -> dict[str, Any]:
    """Return what `default-deny` says, and whose it is to Argo CD."""
    found = get("networkpolicy", "default-deny")
    owner = found["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"].partition(":")[0]
    return {"owner": owner, **found["spec"]}


def get(kind: str, name: str) -> dict[str, Any]:
    """Return an object of the namespace, empty where there is none."""
    found = cluster.output(
        "kubectl", "--namespace", TENANT, "get", kind, name, "--ignore-not-found", "--output", "json"
    )
    return dict(json.loads(found)) if found else {}
