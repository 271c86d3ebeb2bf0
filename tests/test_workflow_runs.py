"""The workflows' own steps with the real commands: pushes, pull requests, a fork's, failures, releases, retraining.

One repository lives through all of it, with its DVC remote in it, as it is generated; the tests go on in order. See
workflow_runner.py for what stands in for GitHub. What each event starts is in test_workflow_events.py and
test_workflow_releases.py.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import generate
from workflow_events import completed, dispatch, of_main, push
from workflow_real import TESTED, RealProject, real_project
from workflow_runner import Run, deliver, run

FORK = "stranger/name"

VARIABLES = {
    "TRAINING_RUNNER": "big-machine",
    "AWS_ROLE_ARN": "role-of-main",
    "AWS_BRANCH_ROLE_ARN": "role-of-branches",
    "AWS_REGION": "eu-west-1",
}
SECRETS = {"MLFLOW_TRACKING_PASSWORD": "secret-of-mlflow"}


@pytest.fixture(scope="module")
def repository(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProject]:
    """The default project, pushed to main, set up as `make github` does, with variables and secrets."""
    folder = tmp_path_factory.mktemp("workflows")
    with real_project(folder, generate(folder)) as made:
        made.hub.vars, made.hub.secrets = dict(VARIABLES), SECRETS
        made.set_up()
        made.push("main")
        made.hub.caused()
        yield made


def of(runs: list[Run], workflow: str, conclusion: str = "success", **results: str) -> Run:
    """Return the one run of a workflow that did something, and hold it to its conclusion and to results of jobs."""
    [found] = [ran for ran in runs if ran.workflow == workflow and ran.conclusion != "skipped"]
    assert found.conclusion == conclusion, found.told()
    assert {name: found.results[name] for name in results} == results, found.told()
    return found


def artifact(repository: RealProject, ran: Run) -> dict[str, str]:
    """Return the text of each file of a run's report."""
    root = repository.hub.artifact(ran.id, "report")
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_text(errors="replace") for path in files}


def taken_over(ran: Run) -> bool:
    """Tell whether main has run every stage but the training."""
    output = ran.jobs["verify"].step("Verify").output
    stages = re.findall(r"Running stage '(\w+)'", output)
    assert stages == ["prepare", "validate_data", "evaluate", "validate_model", "package"], output
    return "taken over from" in output


@pytest.mark.real
def test_push(repository: RealProject) -> None:
    """Everything is run, and handed over: the model to main, the report to the pull request that is opened later."""
    sha = repository.edit("more-dropout", ("params.yaml", "dropout: 0.1", "dropout: 0.3"))
    ci = of(repository.deliver(), "CI", test="success", pipeline="success")
    pipeline = ci.jobs["pipeline"]
    assert pipeline.runs_on == "big-machine"
    assert "Running stage 'train'" in pipeline.step("Pipeline").output
    files = artifact(repository, ci)
    assert {"reports/report.html", "reports/validate_data.html", "reports/validate_model.html"} <= files.keys()
    assert json.loads(files["evaluation/metrics.json"])["metrics"]["roc_auc"]["value"] > 0.9
    assert "Accepted" in files["reports/report.md"]
    assert pipeline.summary.strip() == files["reports/report.md"].strip()
    assert [use["role-to-assume"] for use in ci.inputs_of("aws-actions/configure-aws-credentials")] == [
        "role-of-branches"
    ]
    of(repository.deliver(repository.open(1, "more-dropout")), "Report", comment="success")
    assert "Accepted" in repository.comment(1) and sha[:7] in repository.comment(1)


@pytest.mark.real
def test_second_push_edits_the_comment(repository: RealProject) -> None:
    """What the first push trained is taken over, and its comment is edited."""
    first = repository.comment(1)
    commit = repository.edit("more-dropout", ("README.md", "# Breast Cancer", "# Breast Cancer, again"))
    repository.open(1, "more-dropout", "synchronize")
    runs = repository.tested()
    assert "Running stage 'train'" not in of(runs, "CI").jobs["pipeline"].step("Pipeline").output
    of(runs, "Report")
    assert commit[:7] in repository.comment(1) != first


@pytest.mark.real
def test_stage_that_fails(repository: RealProject) -> None:
    """The pull request cannot be merged, and its comment shows what the stage said."""
    repository.edit("no-such-column", ("params.yaml", "target: diagnosis", "target: prognosis"))
    repository.open(2, "no-such-column")
    runs = repository.tested()
    pipeline = of(runs, "CI", "failure", pipeline="failure").jobs["pipeline"]
    assert [step.name for step in pipeline.steps if step.result == "failure"] == ["Pipeline"]
    assert pipeline.step("Share the results").result == pipeline.step("Gate").result == "skipped"
    of(runs, "Report")
    body = repository.comment(2)
    assert re.search(r"^- \[pipeline\]\(https.*\).* Pipeline$", body, re.MULTILINE)
    assert "Stopped: `prepare` failed" in body and "data.target names column 'prognosis'" in body
    assert not repository.hub.mergeable(2)


@pytest.mark.real
def test_break_before_any_report(repository: RealProject) -> None:
    """Without a report the comment says which steps failed."""
    repository.edit("broken", ("Makefile", "help:  ## list the commands", "help  ## list the commands"))
    repository.open(3, "broken")
    runs = repository.deliver()
    ci = of(runs, "CI", "failure", test="failure", pipeline="failure")
    assert artifact(repository, ci) == {}
    of(runs, "Report")
    for job, step in (("test", "Lint"), ("pipeline", "Pipeline")):
        assert re.search(rf"^- \[{job}\]\(https.*\).* {step}$", repository.comment(3), re.MULTILINE)


@pytest.mark.real
def test_merge(repository: RealProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Main takes the model over and runs all else anew; then come the image, the release, and a word of it."""
    monkeypatch.setitem(repository.hub.vars, "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    repository.merge(1)
    ci = of(repository.tested(), "CI", build="success", release="success", register="success")
    assert taken_over(ci)
    assert "champion: version 1\n" in ci.jobs["register"].step("Register").output
    assert repository.releases() == 1
    record = repository.record()
    ((tag, digest),) = repository.hub.images.items()
    name, _, version = tag.rpartition(":")
    assert record["image"] == f"{name}@{digest}" and version == record["model"]["version"]
    assert record["commit"] == repository.git("rev-parse", "main") and record["previous"] is None
    manifests = repository.hub.git("ls-tree", "--name-only", "env/production:manifests").split()
    assert any(digest in repository.hub.git("show", f"env/production:manifests/{file}") for file in manifests)
    assert repository.hub.signatures.read_text() == f"sign --yes {name}@{digest}\n"
    (image,) = ci.inputs_of("docker/build-push-action")
    assert f"REVISION={record['commit']}" in image["build-args"].splitlines()
    assert "make rollback" in repository.comment(1, "Released as")


@pytest.mark.real
def test_older_commit_that_is_run_late(repository: RealProject) -> None:
    """A run of the commit before does not take the newer release's place."""
    before = repository.releases()
    ci = run(repository.hub, "ci.yaml", push(repository.hub, sha=repository.git("rev-parse", "HEAD^")), TESTED)
    assert ci.results["verify"] == "success" and ci.results["release"] == "skipped", ci.told()
    assert "newer than" in ci.jobs["verify"].step("Plan").output and repository.releases() == before


@pytest.mark.real
def test_merge_of_documents(repository: RealProject) -> None:
    """Nobody is asked, and nothing is built or trained."""
    before = repository.releases(), dict(repository.hub.images)
    repository.edit("readme", ("README.md", "# Breast Cancer, again", "# Breast Cancer"))
    repository.tested()
    repository.open(4, "readme")
    repository.merge(4)
    ci = of(repository.tested(), "CI", verify="success", build="skipped", release="skipped")
    assert "nothing to release" in ci.jobs["verify"].step("Plan").output
    assert (repository.releases(), repository.hub.images) == before


@pytest.mark.real
def test_rollback_and_redeploy(repository: RealProject) -> None:
    """A second release, taken back by the button with a light environment alone, and released again when asked."""
    repository.edit("more-pods", ("k8s/base/horizontalpodautoscaler.yaml", "maxReplicas: 6", "maxReplicas: 8"))
    repository.tested()
    repository.open(5, "more-pods")
    repository.merge(5)
    of(repository.tested(), "CI", release="success")
    first = repository.hub.git("rev-parse", "env/production^:manifests")
    inputs = {"environment": "production"}
    of(repository.deliver(dispatch(repository.hub, "rollback.yaml", inputs=inputs)), "Rollback")
    environments = {path.name for path in (repository.hub.workspace / ".venv").iterdir() if path.is_dir()}
    assert environments == {"release", "uv"}  # two packages, and what installs them
    assert repository.hub.git("rev-parse", "env/production:manifests") == first
    again = deliver(repository.hub, dispatch(repository.hub, "ci.yaml"), assume=TESTED)
    of(again, "CI", "failure", verify="failure", release="skipped")  # it was taken back, and nobody said otherwise
    redeploy = dispatch(repository.hub, "ci.yaml", inputs={"redeploy": True})
    of(deliver(repository.hub, redeploy, assume=TESTED), "CI", release="success")
    assert repository.hub.git("rev-parse", "env/production:manifests") != first


@pytest.mark.real
def test_retraining(repository: RealProject, tmp_path: Path) -> None:
    """A dispatch becomes a pull request with its checks and its report, without an App; its merge is a release."""
    repository.hub.vars = VARIABLES | repository.requests(tmp_path)
    checks = [{"check": "feature drift", "column": "mean area", "value": 0.4, "limit": 0.2, "passed": False}]
    verdict = {"status": "drift", "from": "2026-11-01", "to": "2026-11-02", "rows": 100, "checks": checks}
    payload = {"reason": 'drift"; $(touch /tmp/x) @all', "monitor": json.dumps(verdict)}
    event = of_main(repository.hub, "repository_dispatch", {"action": "retrain", "client_payload": payload})
    runs = deliver(repository.hub, event, assume=TESTED)
    repository.hub.vars = dict(VARIABLES)
    retrain = of(runs, "Retrain", retrain="success", propose="success")
    assert retrain.jobs["retrain"].runs_on == "big-machine"
    assert not (repository.hub.artifact(retrain.id, "candidate") / ".git").exists()
    [(number, pull)] = [(number, pull) for number, pull in repository.hub.pulls.items() if number > 5]
    [opened] = [opened for opened in repository.api.pulls if opened["number"] == number]
    assert "100 labelled requests appended" in opened["body"] and "mean area" in opened["body"]
    assert opened["draft"] and "| 2026-11-01 | `unknown` | 100 |" in opened["body"]  # 15 % of the rows
    assert "@all" not in opened["body"]
    ci = of(runs, "CI", pipeline="success")
    assert ci.event.name == "workflow_dispatch" and ci.event.ref == f"refs/heads/{pull['head']['ref']}"
    assert "Running stage 'train'" not in ci.jobs["pipeline"].step("Pipeline").output
    of(runs, "Report")
    assert pull["head"]["sha"][:7] in repository.comment(number)
    repository.merge(number)
    assert taken_over(of(repository.tested(), "CI", release="success"))
    record = repository.record()
    assert pull["head"]["ref"] == f"retrain/{record['model']['version']}" and record["rows"]["raw"] == 669


@pytest.mark.real
def test_fork(repository: RealProject, tmp_path: Path) -> None:
    """A stranger's code gets nothing of value, and nothing of it runs where a token can write; the report is told."""
    fork, marks = tmp_path / "fork.git", tmp_path / "marks"
    repository.git("clone", "--quiet", "--bare", str(repository.hub.origin), str(fork))
    trap = f"$(shell (echo Makefile; env) >> {marks})\n"
    repository.edit(
        "trap",
        ("Makefile", "PYTHON ?= python3\n", f"PYTHON ?= python3\n{trap}"),
        (
            "src/gitops/reporting/comment.py",
            "import argparse\n",
            f"import argparse\nopen({str(marks)!r}, 'a').write('comment')\n",
        ),
        to=str(fork),
    )
    ci = run(repository.hub, "ci.yaml", repository.open(90, "trap", fork=(FORK, fork)), TESTED)
    assert ci.conclusion == "success", ci.told()
    seen = marks.read_text()
    assert "Makefile" in seen and "ACTIONS_ID_TOKEN_REQUEST_URL" not in seen
    assert not [value for value in (*VARIABLES.values(), *SECRETS.values()) if value in seen]
    marks.unlink()
    of(repository.deliver(completed(repository.hub, ci)), "Report")
    assert not marks.exists()
    assert "Accepted" in repository.comment(90)


@pytest.mark.real
def test_staging(repository: RealProject, tmp_path: Path) -> None:
    """A project that takes staging up: a merge reaches staging alone, and production by a pull request."""
    hub, api = repository.hub, repository.api
    model = generate(tmp_path, staging="yes")
    repository.set_up("staging")
    repository.git("switch", "--quiet", "main")
    for part in ("k8s/overlays/staging", "k8s/argocd-staging", ".github/workflows"):
        shutil.copytree(model / part, repository.clone / part, dirs_exist_ok=True)
    pods = repository.clone / "k8s/base/horizontalpodautoscaler.yaml"
    pods.write_text(pods.read_text().replace("averageUtilization: 70", "averageUtilization: 60"))
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Release to staging first")
    repository.push("main")
    before = repository.record()
    ci = of(repository.tested(), "CI", release="success")
    assert "has not been reported as live" in ci.jobs["release"].step("Propose it for production").output, ci.told()
    assert repository.record() == before
    staged = repository.record("staging")
    assert staged["commit"] == repository.git("rev-parse", "main")
    api.report(staged["commit"], "staging", "success")
    waits = of(repository.deliver(dispatch(hub, "promote.yaml")), "Promote")
    assert "short of promotion.soak_hours (1)" in waits.jobs["promote"].step("Promote").output
    of(repository.deliver(dispatch(hub, "promote.yaml", inputs={"now": True})), "Promote")
    pull = api.pulls[-1]
    assert (pull["head"]["ref"], pull["base"]["ref"]) == ("env/production-next", "env/production")
    assert staged["model"]["version"] in pull["title"]

    repository.git("fetch", "--quiet", "origin")
    repository.git("switch", "--quiet", "--detach", "origin/env/production")
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge pull request", "origin/env/production-next")
    repository.git("push", "--quiet", "origin", "HEAD:env/production", ":env/production-next")
    repository.git("switch", "--quiet", "main")
    pull["state"] = "closed"
    assert repository.record()["image"] == staged["image"]
    promote = of(repository.deliver(dispatch(hub, "promote.yaml")), "Promote")
    assert "nothing to release" in promote.jobs["promote"].step("Promote").output
    assert "averageUtilization: 60" in hub.git("grep", "averageUtilization", "env/production")
    assert api.pulls[-1] is pull and not hub.git("branch", "--list", "env/production-next")
