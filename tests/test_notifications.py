"""What Argo CD says on GitHub about a release (k8s/argocd/notifications.yaml), and of an autoscaler (health.yaml)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from argo_notifications import NOTIFICATIONS, Application, Controller, Refused
from lupa.lua51 import LuaRuntime
from platform_objects import PLATFORM, README, argo_cd, one, render, select
from projects import ROOT, module_of

NOW = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=datetime.UTC)

#: Commits of the environment's branch, and what runs with each.
BEFORE, RELEASE, BACK = "b" * 40, "c" * 40, "d" * 40
MAIN, OLDER = "1" * 40, "2" * 40
MESSAGES = {
    BEFORE: f"Release toy 1\n\nAccepted.\n\nMain-commit: {OLDER}\nModel-sha256: {'0' * 64}\nImage: toy@sha256:0\n",
    RELEASE: f"Release toy 2\n\nAccepted.\n\nMain-commit: {MAIN}\nModel-sha256: {'1' * 64}\nImage: toy@sha256:1\n",
    BACK: f'Revert "Release toy 2"\n\nThis goes back to toy 1 of commit {BEFORE}.\n\n'
    f"Rolled-back-commit: {MAIN}\nBack-to-commit: {OLDER}\nRolled-back-model: {'1' * 64}",
}


def at(minutes: float) -> str:
    """Return the time that many minutes before NOW, as Kubernetes writes it."""
    return (NOW - datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def application(
    revision: str | None,
    sync: str,
    health: str,
    *,
    since: float = 5,
    synced: str | None = RELEASE,
    phase: str = "Succeeded",
    finished: float = 5,
    message: str = "successfully synced (all tasks run)",
    **status: Any,
) -> Application:
    """Return an Application as Argo CD 3.5 leaves it; `synced` is its last operation's revision, if there was one."""
    operation = {"sync": {"revision": synced, "prune": True}, "initiatedBy": {"automated": True}}
    state: dict[str, Any] = {
        "operation": operation,
        "phase": phase,
        "message": message,
        "startedAt": at(finished + 0.1),
    }
    if phase != "Running":
        state["finishedAt"] = at(finished)
    state["syncResult"] = {"revision": synced, "source": {"path": "manifests"}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {
            "name": "m-churn-production",
            "namespace": "argocd",
            "annotations": {
                f"notifications.argoproj.io/subscribe.{name}.github": "" for name in ("live", "not-live", "not-applied")
            },
        },
        "spec": {
            "project": "m-churn-production",
            "source": {
                "repoURL": "https://github.com/owner/name.git",
                "targetRevision": "env/production",
                "path": "manifests",
            },
        },
        "status": {
            "health": {"status": health, "lastTransitionTime": at(since)},
            "operationState": state if synced else None,
            "reconciledAt": at(0.1),
            "resources": [{"kind": "Service", "name": "churn", "status": sync, "version": "v1"}],
            "summary": {"images": ["ghcr.io/owner/name@sha256:1"]},
            "sync": {"status": sync, "revision": revision} if revision else {"status": sync},
        }
        | status,
    }


REFUSED = "one or more synchronization tasks are not valid"

#: What Argo CD's controller writes in the course of a release, and which templates are sent then.
STATUSES: dict[str, tuple[Application, list[str]]] = {
    "live": (application(RELEASE, "Synced", "Healthy"), ["live", "live-comment"]),
    # health is still that of the release before, whose pods serve
    "not noticed yet": (application(RELEASE, "OutOfSync", "Healthy", synced=BEFORE, finished=900), []),
    "applying": (application(RELEASE, "OutOfSync", "Healthy", phase="Running"), []),
    "pods are starting": (application(RELEASE, "Synced", "Progressing", since=0.2, finished=0.2), []),
    "a canary waits": (application(RELEASE, "Synced", "Suspended", since=2, finished=9), []),
    "degraded for seconds": (application(RELEASE, "Synced", "Degraded", since=0.5), []),
    "degraded": (application(RELEASE, "Synced", "Degraded", since=2), ["not-live", "not-live-comment"]),
    # the crash-looping pods that it replaces are gone, and the Deployment's condition still is theirs
    "rolled back a second ago": (
        application(BACK, "Synced", "Degraded", since=9, synced=BACK, finished=0.05),
        [],
    ),
    "rolled back": (
        application(BACK, "Synced", "Healthy", since=0.1, synced=BACK, finished=0.3),
        ["live", "live-comment"],
    ),
    "refused": (
        application(RELEASE, "OutOfSync", "Healthy", since=900, phase="Failed", message=REFUSED),
        ["not-applied", "not-applied-comment"],
    ),
    "refused and tried again": (application(RELEASE, "OutOfSync", "Healthy", phase="Running", message=REFUSED), []),
    # nothing of it had been applied, so that there is nothing to sync: the last operation is still the refused one
    "refused, then rolled back": (
        application(BACK, "Synced", "Healthy", since=900, phase="Failed", message=REFUSED),
        ["live", "live-comment"],
    ),
    "refused, and a fix not applied yet": (
        application(BACK, "OutOfSync", "Healthy", since=900, phase="Failed", message=REFUSED),
        [],
    ),
    "repository cannot be read": (
        application(
            "env/production", "Unknown", "Healthy", synced="env/production", phase="Error", message="ComparisonError"
        ),
        [],
    ),
    "project not there": (application(None, "Unknown", "Unknown", synced=None), []),
    "log only begun": (application("e" * 40, "Synced", "Healthy", synced=None, resources=None), []),
}


@pytest.fixture
def github(tmp_path: Path) -> Iterator[Any]:
    """GitHub, with the two commits of main merged by a pull request each."""
    module = module_of(ROOT, "tests/gitops/github_server.py")
    with module.GitHub(tmp_path) as server:
        for number, commit in enumerate((OLDER, MAIN), 1):
            server.merges[commit] = [server.open_pull(number, "a" * 40) | {"state": "closed"}]
        server.commits = {OLDER, MAIN, *MESSAGES}
        # The App has the rights that README.md gives it, and no others.
        server.tokens["app"] = "argo-cd[bot]"
        server.permissions["app"] = {"deployments": "write", "pull-requests": "write"}
        yield server


def controller(server: Any, now: datetime.datetime = NOW) -> Controller:
    """Return the controller in front of the stand-in for GitHub."""
    call_of = module_of(ROOT, "tests/gitops/github_server.py").Call

    def call(method: str, path: str, body: Any = None) -> Any:
        address = urlsplit(f"/repos/{server.repository}/{path}")
        query = dict(parse_qsl(address.query))
        status, _, answer = server.answer(call_of(method, address.path, query, body), "app")
        if status >= 400:
            raise Refused(f"{status} {answer['message']}")
        return answer

    return Controller(call, MESSAGES, now)


def said(server: Any) -> dict[str, list[tuple[str, str]]]:
    """Return what was reported: by commit, the environment and the state of each status."""
    return {
        each["sha"]: [(each["environment"], status["state"]) for status in each["statuses"]]
        for each in server.deployments
    }


@pytest.mark.parametrize("name", STATUSES)
def test_what_is_said_of_a_status(name: str, github: Any) -> None:
    status, sent = STATUSES[name]
    argo = controller(github)
    assert argo.process(status) == sent and argo.refusals == []
    states = {"live": "success", "not-live": "failure", "not-applied": "error"}
    commit = OLDER if status["status"]["sync"].get("revision") == BACK else MAIN
    assert said(github) == ({commit: [("production", states[sent[0]])]} if sent else {})
    assert [len(comments) for comments in github.comments.values()] == [1] * bool(sent)
    assert argo.process(status) == [], "once"


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_a_release_and_its_rollback(environment: str, github: Any) -> None:
    """Each status on the commit of main that it is about, and one line on its pull request, edited in place."""
    argo = controller(github)

    def sees(*arguments: Any, **status: Any) -> list[str]:
        found = application(*arguments, **status)
        found["spec"]["source"]["targetRevision"] = f"env/{environment}"
        return argo.process(found)

    assert sees(BEFORE, "Synced", "Healthy", synced=BEFORE) == ["live", "live-comment"]
    assert sees(RELEASE, "Synced", "Progressing") == []
    assert sees(RELEASE, "Synced", "Degraded") == ["not-live", "not-live-comment"]
    [line] = github.comments[2]
    assert line["body"].startswith(f"**Degraded in {environment}**: {RELEASE} ")
    assert sees(BACK, "Synced", "Degraded", synced=BACK, finished=0.1) == []
    assert sees(BACK, "Synced", "Healthy", synced=BACK) == ["live", "live-comment"]
    success, failure = (environment, "success"), (environment, "failure")
    assert said(github) == {OLDER: [success, success], MAIN: [failure]}
    [line] = github.comments[1]
    assert line["body"].startswith(f"**Live in {environment}**: {BACK}, synced and healthy at 2026-11-26T")
    assert line["body"].splitlines()[1] == "<!-- argocd-notifications release -->"
    assert len(github.deployments) == 2, "GitHub lists one deployment a commit and environment"


def test_each_degradation_is_said_and_each_release_once(github: Any) -> None:
    """Autoscaling makes a Deployment Progressing each time: that must not be a release each time."""
    argo = controller(github)
    for health, since, sent in (
        ("Healthy", 5, ["live", "live-comment"]),
        ("Progressing", 0.1, []),
        ("Healthy", 0.1, []),
        ("Degraded", 3, ["not-live", "not-live-comment"]),
        ("Degraded", 4, []),
        ("Healthy", 1, []),
        ("Degraded", 3, ["not-live", "not-live-comment"]),
    ):
        assert argo.process(application(RELEASE, "Synced", health, since=since)) == sent


@pytest.mark.parametrize(
    "message",
    [
        f'Revert "Release toy 2"\n\nThis reverts commit {RELEASE}.\n',
        "Merge pull request #7 from owner/env/production-next\n\nRelease toy 2\n",
        f"Two\n\nMain-commit: {MAIN}\nMain-commit: {OLDER}\n",
        f"Quoted: Main-commit: {MAIN}\n\nMain-commit: {MAIN[:12]}\nRolled-back-commit: {OLDER}\n",
    ],
    ids=["git revert", "merge commit", "two", "no trailer"],
)
def test_a_message_that_does_not_tell_the_commit_of_main(message: str, github: Any) -> None:
    """Then it is said of the branch's commit, and to the pull request that brought that, never of another commit."""
    argo = controller(github)
    argo.messages = {BACK: message}
    github.merges[BACK] = [github.open_pull(7, "a" * 40, "env/production-next", base="env/production")]
    assert argo.process(application(BACK, "Synced", "Healthy", synced=BACK)) == ["live", "live-comment"]
    assert said(github) == {BACK: [("production", "success")]} and list(github.comments) == [7]


@pytest.mark.parametrize(
    "message",
    [
        f"Release toy 2 (#12)\n\nAccepted.\n\nMain-commit: {MAIN}\nModel-sha256: {'1' * 64}\nImage: toy@sha256:1",
        f"Release toy 2 (#12)\r\n\r\nStaging runs this.\r\n\r\nMain-commit: {MAIN}\r\n\r\nCo-authored-by: A <a@b>",
    ],
    ids=["squash", "squash with the pull request's text"],
)
def test_a_squashed_promotion_tells_it(message: str, github: Any) -> None:
    argo = controller(github)
    argo.messages = {RELEASE: message}
    argo.process(application(RELEASE, "Synced", "Healthy"))
    assert said(github) == {MAIN: [("production", "success")]}


def test_main_is_not_merged_and_no_check_is_waited_for(github: Any) -> None:
    """By default GitHub would merge main into the commit, and refuse one whose run is not over: this release's own."""
    github.behind = github.unchecked = {MAIN}
    argo = controller(github)
    live = argo.templates["live"]["github"]["deployment"]
    for setting in ("autoMerge", "requiredContexts"):
        kept = live.pop(setting)
        assert argo.process(STATUSES["live"][0]) == ["live-comment"] and "409 Conflict" in argo.refusals[-1]
        live[setting] = kept
        argo.notified.clear()
    assert argo.process(STATUSES["live"][0]) == ["live", "live-comment"]


def test_a_locked_pull_request_repeats_nothing(github: Any) -> None:
    """What GitHub refuses is tried again each minute; what it has taken is not."""
    argo = controller(github)
    github.refusals["POST"] = [
        None,
        None,
        *[(403, {}, {"message": "Unable to create comment because issue is locked."})] * 3,
    ]
    assert argo.process(STATUSES["live"][0]) == ["live"]
    for _ in range(2):
        assert argo.process(STATUSES["live"][0]) == []
    assert said(github) == {MAIN: [("production", "success")]} and len(argo.refusals) == 3
    assert argo.process(STATUSES["live"][0]) == ["live-comment"]


@pytest.mark.parametrize("missing", ["deployments", "pull-requests"])
def test_rights_of_the_app(missing: str, github: Any) -> None:
    """Each of the two that README.md names is needed, and no more than these."""
    assert f"{missing.replace('-', ' ').capitalize()}: read and write" in README
    del github.permissions["app"][missing]
    argo = controller(github)
    argo.process(STATUSES["live"][0])
    assert "403 Resource not accessible by integration" in argo.refusals


def test_a_description_is_cut(github: Any) -> None:
    status = application(RELEASE, "OutOfSync", "Healthy", phase="Failed", message="one or more\nobjects " * 40)
    argo = controller(github)
    assert argo.process(status) == ["not-applied", "not-applied-comment"] and argo.refusals == []
    description = github.deployments[0]["statuses"][0]["description"]
    assert len(description) == 140 and "\n" not in description


def test_who_asks_for_it(projects: dict[str, Path], tmp_path: Path) -> None:
    """A project's own Applications do, and the platform's of models; the project has the same two files as patches."""
    for name in ("notifications", "health"):
        text = (PLATFORM / f"argocd/{name}.yaml").read_text()
        assert (projects["staging"] / f"k8s/argocd/{name}.yaml").read_text() == text
        [rendered] = [
            item
            for item in select(argo_cd(tmp_path / name), "ConfigMap")
            if item["metadata"]["name"] == yaml.safe_load(text)["metadata"]["name"]
        ]
        assert yaml.safe_load(text)["data"].items() <= rendered["data"].items()
    asked = application(None, "Unknown", "Unknown")["metadata"]["annotations"]
    triggers = {name.split(".")[1] for name in yaml.safe_load(NOTIFICATIONS.read_text())["data"] if "trigger." in name}
    assert {name.split(".")[-2] for name in asked} == triggers
    for folder, branch in (("argocd", "env/production"), ("argocd-staging", "env/staging")):
        found = one(render(projects["staging"] / "k8s" / folder), "Application")
        assert found["metadata"]["annotations"].items() >= asked.items()
        assert found["spec"]["source"]["targetRevision"] == branch
    fleet = [yaml.safe_load((PLATFORM / "tenant/application.yaml").read_text())]
    assert one(fleet, "Application")["metadata"]["annotations"].items() >= asked.items()


def test_keys_of_the_secret() -> None:
    service = yaml.safe_load(NOTIFICATIONS.read_text())["data"]["service.github"]
    keys = set(re.findall(r"\$([\w-]+)", service))
    assert keys and all(f"={key}=" in README for key in keys), "README.md's command makes other keys"


#: Conditions as the autoscalers' controller writes them (pkg/controller/podautoscaler): type, status, reason.
SCALE = ("AbleToScale", "True", "SucceededGetScale")
READY = ("AbleToScale", "True", "ReadyForNewScale")
ACTIVE = ("ScalingActive", "True", "ValidMetricFound")
NO_METRICS = ("ScalingActive", "False", "FailedGetResourceMetric")
LIMITED = ("ScalingLimited", "True", "TooFewReplicas")
AUTOSCALERS: dict[str, tuple[list[tuple[str, str, str]] | None, str, str]] = {
    "new": (None, "Progressing", "Waiting to Autoscale"),
    "nothing said yet": ([], "Progressing", "Waiting to Autoscale"),
    "scales": ([READY, ACTIVE, LIMITED], "Healthy", "ReadyForNewScale"),
    "new pods have no metrics": ([SCALE, NO_METRICS], "Healthy", "FailedGetResourceMetric"),
    "no metrics any more": ([READY, NO_METRICS, LIMITED], "Healthy", "FailedGetResourceMetric"),
    "no external metric": (
        [SCALE, ("ScalingActive", "False", "FailedGetExternalMetric")],
        "Healthy",
        "FailedGetExternalMetric",
    ),
    "no such target": ([("AbleToScale", "False", "FailedGetScale")], "Degraded", "FailedGetScale"),
    "may not scale": ([("AbleToScale", "False", "FailedUpdateScale"), ACTIVE], "Degraded", "FailedUpdateScale"),
    "ambiguous": ([SCALE, ("ScalingActive", "False", "InvalidSelector")], "Degraded", "InvalidSelector"),
    "switched off": ([SCALE, ("ScalingActive", "False", "ScalingDisabled")], "Healthy", "SucceededGetScale"),
    "held back": ([("AbleToScale", "False", "BackoffBoth")], "Progressing", "Waiting to Autoscale"),
}


def health(autoscaler: dict[str, Any]) -> tuple[str, str]:
    """Return status and message by the Lua of health.yaml, in which Argo CD has no library but the base and tables."""
    data = yaml.safe_load((PLATFORM / "argocd/health.yaml").read_text())["data"]
    lua = LuaRuntime(register_eval=False)
    for library in ("string", "math", "io", "os", "debug", "package", "require"):
        lua.globals()[library] = None
    lua.globals().obj = lua.table_from(autoscaler, recursive=True)
    found = lua.execute(data["resource.customizations.health.autoscaling_HorizontalPodAutoscaler"])
    return found["status"], found["message"]


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_health_of_an_autoscaler(name: str) -> None:
    conditions, status, message = AUTOSCALERS[name]
    written = [
        {"type": kind, "status": state, "reason": reason, "message": reason, "lastTransitionTime": at(1)}
        for kind, state, reason in conditions or []
    ]
    autoscaler: dict[str, Any] = {"apiVersion": "autoscaling/v2", "metadata": {"name": "churn"}}
    if conditions is not None:
        autoscaler["status"] = {"currentReplicas": 2, "desiredReplicas": 2, "conditions": written}
    assert health(autoscaler) == (status, message)


def test_an_autoscaler_of_the_first_version_is_never_without_an_end() -> None:
    annotations = {"autoscaling.alpha.kubernetes.io/conditions": '[{"type":"AbleToScale","status":"True"}]'}
    old = {"apiVersion": "autoscaling/v1", "metadata": {"annotations": annotations}, "status": {"currentReplicas": 2}}
    assert health(old)[0] == "Healthy"
