"""The workflows' own steps in clones of a local repository: a pull request, a fork's, failing ones, merges.

One repository lives through all of it; the tests go on in order. See workflow_runner.py for what stands in for GitHub.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT, generate, module_of
from workflow_hub import Event, Hub
from workflow_runner import Run, run

REPOSITORY = "owner/breast-cancer"
FORK = "stranger/breast-cancer"

#: Results are had sooner with these, and mean less, which is of no matter here.
QUICK = {"epochs: 200": "epochs: 40", "bootstrap: 1000": "bootstrap: 100"}

VARIABLES = {"TRAINING_RUNNER": "big-machine", "AWS_ROLE_ARN": "arn:aws:iam::1:role/data", "AWS_REGION": "eu-west-1"}
SECRETS = {"MLFLOW_TRACKING_PASSWORD": "secret-of-mlflow"}

#: How a job that calls the stand-in for GitHub's API trusts it.
TRUST = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "NO_PROXY", "no_proxy")

#: A job whose steps have been run before for the same code.
TESTED = {"test": "success"}


@dataclass
class Repository:
    """The repository on all sides: the hub, the stand-in for its REST API, a person's clone, the DVC remote."""

    hub: Hub
    api: Any
    clone: Path
    remote: Path

    def git(self, *arguments: str, at: Path | None = None) -> str:
        command = ["git", "-C", str(at or self.clone), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def change(self, branch: str, *edits: tuple[str, str, str], push_to: str = "origin") -> str:
        """Commit edits (file, old, new) to a branch, which may be new, push it and return the commit."""
        self.git("switch", "--quiet", *([] if self.git("branch", "--list", branch) else ["--create"]), branch)
        for name, old, new in edits:
            text = (self.clone / name).read_text()
            assert text.count(old) == 1, (name, old)
            (self.clone / name).write_text(text.replace(old, new))
        self.git("commit", "--quiet", "--all", "--message", f"Change {branch}")
        self.git("push", "--quiet", push_to, branch)
        commit = self.git("rev-parse", "HEAD")
        self.git("switch", "--quiet", "main")
        return commit

    def open(self, number: int, branch: str, fork: Path | None = None) -> Event:
        """Open a pull request."""
        event = self.hub.pull_request(number, branch, (FORK, fork) if fork else None)
        self.api.open_pull(number, event.payload["pull_request"]["head"]["sha"], branch, FORK if fork else None)
        return event

    def merge(self, branch: str) -> Event:
        """Merge a branch and push main."""
        self.git("merge", "--quiet", "--no-ff", "--message", f"Merge {branch}", branch)
        self.git("push", "--quiet", "origin", "main")
        return self.hub.push(self.git("rev-parse", "HEAD"))

    def report(self, ci: Run) -> Run:
        """Run what the end of a CI run starts."""
        ended = self.hub.completed(ci)
        assert list(self.hub.workflows(ended)) == ["report.yaml"]
        self.api.jobs[ci.id] = ci.described(f"{self.hub.url}/{REPOSITORY}")
        self.hub.machine = {name: self.api.environment[name] for name in TRUST}
        ran = run(self.hub, "report.yaml", ended)
        self.hub.machine = {}
        return ran

    def comment(self, number: int) -> str:
        """Return the one comment on a pull request."""
        (comment,) = self.api.comments[number]
        assert comment["user"]["login"] == "github-actions[bot]"
        return str(comment["body"])

    def releases(self) -> list[str]:
        """Return the commits of env/production, the newest first."""
        return self.hub.git("log", "--format=%H", "env/production").split()

    def shared(self) -> set[Path]:
        """Return what the DVC remote holds."""
        return {path for path in self.remote.rglob("*") if path.is_file()}


def server_of(folder: Path, hub: Hub) -> Any:
    """Return the stand-in for GitHub's REST API of gitops' tests, which accepts the hub's tokens."""
    module = module_of(ROOT, "tests/gitops/github_server.py")
    server = module.GitHub(folder, repository=REPOSITORY)
    answer = server.answer

    def permitted(call: Any, token: str) -> Any:
        needed = "actions" if "/actions/" in call.path else "pull-requests"
        permission = hub.tokens.get(token, {}).get(needed)
        if permission != "write" and (permission != "read" or call.method != "GET"):
            return 403, {}, {"message": "Resource not accessible by integration"}
        server.tokens[token] = module.ACTIONS
        return answer(call, token)

    server.answer = permitted
    return server


@pytest.fixture(scope="module")
def repository(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """The default project with a DVC remote outside it, pushed to main, with variables and secrets set."""
    folder = tmp_path_factory.mktemp("workflows")
    remote, origin = folder / "dvc-remote", folder / "origin.git"
    project = generate(folder, dvc_remote=str(remote))
    shutil.copytree(project / ".dvc/cache/files", remote / "files")  # what `make push` does on the first day
    params = (project / "params.yaml").read_text()
    for old, new in QUICK.items():
        assert params.count(old) == 1
        params = params.replace(old, new)
    (project / "params.yaml").write_text(params)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", origin], check=True)
    hub = Hub(folder / "hub", origin, REPOSITORY)
    hub.vars, hub.secrets = VARIABLES, SECRETS
    with server_of(folder, hub) as server:
        hub.url, hub.api = server.url, server.api
        made = Repository(hub, server, project, remote)
        made.git("commit", "--quiet", "--all", "--message", "Be quick")
        made.git("remote", "add", "origin", str(origin))
        made.git("push", "--quiet", "--set-upstream", "origin", "main")
        yield made


def ended(ran: Run, conclusion: str, **results: str) -> None:
    """Hold a run to its conclusion, and to the results of its jobs, of which `pass` has the conclusion's."""
    assert ran.conclusion == conclusion, ran.told()
    if results:
        assert {name: job.result for name, job in ran.jobs.items()} == results | {"pass": conclusion}, ran.told()


def artifact(repository: Repository, ran: Run) -> dict[str, str]:
    """Return the text of each file of a run's report."""
    root = repository.hub.artifact(ran.id, "report")
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_text(errors="replace") for path in files}


def taken_over(output: str) -> bool:
    """Tell whether main has run every stage but the training."""
    stages = re.findall(r"Running stage '(\w+)'", output)
    assert stages == ["prepare", "validate_data", "evaluate", "validate_model", "package"], output
    return "taken over from" in output


@pytest.mark.real
def test_pull_request(repository: Repository) -> None:
    """Everything is run, the report is handed over and becomes the pull request's comment."""
    repository.change("more-dropout", ("params.yaml", "dropout: 0.1", "dropout: 0.3"))
    event = repository.open(1, "more-dropout")
    assert list(repository.hub.workflows(event)) == ["ci.yaml"]
    ci = run(repository.hub, "ci.yaml", event)
    ended(ci, "success", test="success", pipeline="success")
    assert ci.concurrency == {"group": "ci-1", "cancel-in-progress": True}
    pipeline = ci.jobs["pipeline"]
    assert pipeline.runs_on == "big-machine"
    assert "Running stage 'train'" in pipeline.step("Pipeline").output
    files = artifact(repository, ci)
    assert files["reports/pull_request.txt"] == "1\n"
    assert {"reports/report.html", "reports/validate_data.html", "reports/validate_model.html"} <= files.keys()
    assert json.loads(files["evaluation/metrics.json"])["metrics"]["roc_auc"]["value"] > 0.9
    assert "Accepted" in files["reports/report.md"]
    assert pipeline.summary.strip() == files["reports/report.md"].strip()
    (role,) = ci.inputs_of("aws-actions/configure-aws-credentials")
    assert list(role.values()) == [VARIABLES["AWS_ROLE_ARN"], VARIABLES["AWS_REGION"]]
    assert not ci.inputs_of("google-github-actions/auth") and not ci.inputs_of("azure/login")
    ended(repository.report(ci), "success")
    body = repository.comment(1)
    assert "Accepted" in body and event.payload["pull_request"]["head"]["sha"][:7] in body


@pytest.mark.real
def test_second_push_edits_the_comment(repository: Repository) -> None:
    """What the first push trained is not trained again, and its comment is edited."""
    first = repository.comment(1)
    commit = repository.change("more-dropout", ("README.md", "# Breast Cancer", "# Breast Cancer, again"))
    event = repository.hub.pull_request(1, "more-dropout", action="synchronize")
    repository.api.pulls[0]["head"]["sha"] = commit
    ci = run(repository.hub, "ci.yaml", event, TESTED)
    ended(ci, "success")
    assert "Running stage" not in ci.jobs["pipeline"].step("Pipeline").output
    ended(repository.report(ci), "success")
    assert commit[:7] in repository.comment(1) != first


@pytest.mark.real
def test_stage_that_fails(repository: Repository) -> None:
    """The pull request cannot be merged, and its comment shows what the stage said."""
    repository.change("no-such-column", ("params.yaml", "target: diagnosis", "target: prognosis"))
    ci = run(repository.hub, "ci.yaml", repository.open(2, "no-such-column"), TESTED)
    ended(ci, "failure", test="success", pipeline="failure")
    pipeline = ci.jobs["pipeline"]
    assert [step.name for step in pipeline.steps if step.result == "failure"] == ["Pipeline"]
    assert pipeline.step("Share the results").result == pipeline.step("Gate").result == "skipped"
    assert {"reports/report.md", "reports/pull_request.txt"} <= artifact(repository, ci).keys()
    ended(repository.report(ci), "success")
    body = repository.comment(2)
    assert re.search(r"^- \[pipeline\]\(https.*\).* Pipeline$", body, re.MULTILINE)
    assert "Stopped: `prepare` failed" in body and "data.target names column 'prognosis'" in body


@pytest.mark.real
def test_break_before_any_report(repository: Repository) -> None:
    """Without a report the comment says which steps failed."""
    repository.change("broken", ("Makefile", "help:  ## list the commands", "help  ## list the commands"))
    ci = run(repository.hub, "ci.yaml", repository.open(3, "broken"))
    ended(ci, "failure", test="failure", pipeline="failure")
    assert artifact(repository, ci) == {}
    report = repository.report(ci)
    ended(report, "success")
    assert "Artifact not found" in report.jobs["comment"].step("Get the report").output
    body = repository.comment(3)
    for job, step in (("test", "Lint"), ("pipeline", "Pipeline")):
        assert re.search(rf"^- \[{job}\]\(https.*\).* {step}$", body, re.MULTILINE)


@pytest.mark.real
def test_merge(repository: Repository) -> None:
    """CI on main takes the pull request's model from the DVC remote, runs all else anew, and no comment is made."""
    event = repository.merge("more-dropout")
    assert list(repository.hub.workflows(event)) == ["ci.yaml", "deploy.yaml"]
    ci = run(repository.hub, "ci.yaml", event, TESTED)
    ended(ci, "success")
    assert ci.concurrency == {"group": f"ci-{event.sha}", "cancel-in-progress": False}
    assert taken_over(ci.jobs["pipeline"].step("Verify").output)
    assert {ci.jobs["pipeline"].step(name).result for name in ("Pipeline", "Share the results")} == {"skipped"}
    assert repository.report(ci).conclusion == "skipped"


@pytest.mark.real
def test_deploy(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second merge is deployed first: one release, of the image that was built, attested and signed, registered."""
    monkeypatch.setitem(repository.hub.vars, "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    repository.change("more-pods", ("k8s/base/horizontalpodautoscaler.yaml", "maxReplicas: 6", "maxReplicas: 8"))
    deploy = run(repository.hub, "deploy.yaml", repository.merge("more-pods"))
    ended(deploy, "success")
    assert "champion: version 1\n" in deploy.jobs["deploy"].step("Register").output
    assert deploy.concurrency == {"group": "deploy", "cancel-in-progress": False}
    job = deploy.jobs["deploy"]
    assert taken_over(job.step("Verify").output)
    assert not deploy.inputs_of("actions/cache/restore") and not deploy.inputs_of("actions/cache/save")
    (commit,) = repository.releases()
    record = json.loads(repository.hub.git("show", f"{commit}:release.json"))
    ((tag, digest),) = repository.hub.images.items()
    name, _, version = tag.rpartition(":")
    assert record["image"] == f"{name}@{digest}" and version == record["model"]["version"]
    assert record["commit"] == repository.git("rev-parse", "main") and record["previous"] is None
    manifests = repository.hub.git("ls-tree", "--name-only", f"{commit}:manifests").split()
    assert any(digest in repository.hub.git("show", f"{commit}:manifests/{file}") for file in manifests)
    assert repository.hub.signatures.read_text() == f"sign --yes {name}@{digest}\n"
    assert [use["subject-digest"] for use in deploy.inputs_of("actions/attest")] == [digest]
    (image,) = deploy.inputs_of("docker/build-push-action")
    assert f"REVISION={record['commit']}" in image["build-args"].splitlines()
    assert len(deploy.inputs_of("aws-actions/configure-aws-credentials")) == 1


def releases_nothing(repository: Repository, event: Event) -> str:
    """Run a deployment that finds nothing to release, and return what its plan says."""
    before = repository.releases(), dict(repository.hub.images), repository.hub.signatures.read_text()
    deploy = run(repository.hub, "deploy.yaml", event)
    ended(deploy, "success")
    job = deploy.jobs["deploy"]
    left_out = [step.name for step in job.steps[job.steps.index(job.step("Plan")) + 1 :]]
    assert "Release" in left_out
    assert all(job.step(name).result == "skipped" for name in left_out), deploy.told()
    assert (repository.releases(), repository.hub.images, repository.hub.signatures.read_text()) == before
    return job.step("Plan").output


@pytest.mark.real
def test_older_commit_deployed_late(repository: Repository) -> None:
    """The first merge's deployment comes after the second one's: the newer release stays."""
    older = repository.git("rev-parse", "HEAD^")
    assert "newer than" in releases_nothing(repository, repository.hub.push(older))


@pytest.mark.real
def test_merge_of_documents(repository: Repository) -> None:
    repository.change("readme", ("README.md", "# Breast Cancer, again", "# Breast Cancer"))
    assert "nothing to release" in releases_nothing(repository, repository.merge("readme"))


@pytest.mark.real
def test_monitor_of_requests_that_are_refused(repository: Repository, tmp_path: Path) -> None:
    """Whoever may send requests can cause this: a green run that tells people, and that starts no retraining."""
    record = json.loads(repository.hub.git("show", "env/production:release.json"))
    problem = {"instance": 0, "column": "\n::error::x", "error": "no such column"}
    line = {"time": datetime.now(UTC).isoformat(), "model_version": record["model"]["version"], "status": 400}
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(line | {"request_id": "a", "errors": [problem]}) + "\n" for _ in range(200))
    )
    repository.hub.vars = VARIABLES | {"REQUEST_LOG": str(tmp_path)}
    monitor = run(repository.hub, "monitor.yaml", Event("schedule", {}, repository.hub.git("rev-parse", "main")))
    repository.hub.vars = VARIABLES
    ended(monitor, "success")
    said = monitor.jobs["monitor"].step("Monitor").output.splitlines()
    (warning,) = [line for line in said if line.lstrip().startswith("::")]
    assert warning.startswith("::warning title=Monitor::") and "Invalid requests: refused requests" in warning
    assert "Invalid requests" in monitor.jobs["monitor"].summary
    heard = repository.hub.completed(monitor)
    assert list(repository.hub.workflows(heard)) == ["retrain.yaml"]
    assert run(repository.hub, "retrain.yaml", heard).conclusion == "skipped"


def log_requests(folder: Path, table: Path) -> dict[str, str]:
    """Write a request log and its labels, of rows that are like the table's; return the variables that name them."""
    lines = table.read_text().splitlines()
    columns = lines[0].split(",")
    entries, labels = [], ["request_id,label"]
    for place, line in enumerate(lines[1:101]):
        row = dict(zip(columns, line.split(","), strict=True))
        labels.append(f"r{place},{row.pop('diagnosis')}")
        inputs = {name: float(value) * 1.001 for name, value in row.items()}
        entry = {"time": "2026-11-01T12:00:00Z", "request_id": f"r{place}", "instance": 0, "inputs": inputs}
        entries.append(json.dumps(entry))
    for name, content in (("requests/a.jsonl", entries), ("labels/a.csv", labels)):
        (folder / name).parent.mkdir()
        (folder / name).write_text("\n".join(content) + "\n")
    return {"REQUEST_LOG": str(folder / "requests"), "LABELS": str(folder / "labels")}


@pytest.mark.real
def test_retraining(repository: Repository, tmp_path: Path) -> None:
    """A dispatch becomes a pull request, whose CI trains nothing, and whose merge is a release."""
    pointer = (repository.clone / "data/raw.csv.dvc").read_text()
    md5 = re.findall("md5: (.{32})", pointer)[0]
    repository.hub.vars = VARIABLES | log_requests(tmp_path, repository.remote / "files/md5" / md5[:2] / md5[2:])
    checks = [{"check": "feature drift", "column": "mean area", "value": 0.4, "limit": 0.2, "passed": False}]
    verdict = {"status": "drift", "from": "2026-11-01", "to": "2026-11-02", "rows": 100, "checks": checks}
    payload = {"reason": 'drift"; $(touch /tmp/x) @all', "monitor": json.dumps(verdict)}
    main = repository.hub.git("rev-parse", "main")
    event = Event("repository_dispatch", {"action": "retrain", "client_payload": payload}, main)
    assert list(repository.hub.workflows(event)) == ["retrain.yaml"]
    repository.hub.machine = {name: repository.api.environment[name] for name in TRUST}
    pulls = len(repository.api.pulls)
    ran = run(repository.hub, "retrain.yaml", event)
    repository.hub.machine, repository.hub.vars = {}, VARIABLES
    assert ran.conclusion == "success", ran.told()
    assert ran.concurrency == {"group": "retrain", "cancel-in-progress": False}
    assert ran.jobs["retrain"].runs_on == "big-machine"
    (pull,) = repository.api.pulls[pulls:]
    assert "100 labelled requests appended" in pull["body"] and "mean area" in pull["body"]
    assert pull["draft"] and "| 2026-11-01 | `unknown` | 100 |" in pull["body"]  # 15 % of the rows
    assert "@all" not in pull["body"] and "Opened" in ran.jobs["retrain"].summary
    assert repository.hub.git("rev-parse", "main") == main
    branch = pull["head"]["ref"]
    ci = run(repository.hub, "ci.yaml", repository.hub.pull_request(pull["number"], branch), TESTED)
    ended(ci, "success")
    assert "Running stage" not in ci.jobs["pipeline"].step("Pipeline").output
    repository.git("fetch", "--quiet", "origin", branch)
    deploy = run(repository.hub, "deploy.yaml", repository.merge("FETCH_HEAD"))
    ended(deploy, "success")
    assert taken_over(deploy.jobs["deploy"].step("Verify").output)
    record = json.loads(repository.hub.git("show", "env/production:release.json"))
    assert branch == f"retrain/{record['model']['version']}" and record["rows"]["raw"] == 669


@pytest.mark.real
def test_fork(repository: Repository, tmp_path: Path) -> None:
    """A stranger's code gets nothing of value, and nothing of it runs where a token can write; the report is told."""
    fork, marks = tmp_path / "fork.git", tmp_path / "marks"
    repository.git("clone", "--quiet", "--bare", str(repository.hub.origin), str(fork))
    trap = f"$(shell (echo Makefile; env) >> {marks})\n"
    repository.change(
        "trap",
        ("Makefile", "PYTHON ?= python3\n", f"PYTHON ?= python3\n{trap}"),
        (
            "src/gitops/reporting/comment.py",
            "import argparse\n",
            f"import argparse\nopen({str(marks)!r}, 'a').write('comment')\n",
        ),
        push_to=str(fork),
    )
    before = repository.shared()
    ci = run(repository.hub, "ci.yaml", repository.open(4, "trap", fork), TESTED)
    ended(ci, "success")
    pipeline = ci.jobs["pipeline"]
    assert pipeline.runs_on == "ubuntu-24.04"
    assert pipeline.permissions == {"actions": "read", "contents": "read"}
    assert {pipeline.step(name).result for name in ("Sign in to the data's cloud", "Share the results")} == {"skipped"}
    assert repository.shared() == before
    seen = marks.read_text()
    assert "Makefile" in seen and "ACTIONS_ID_TOKEN_REQUEST_URL" not in seen
    assert not [value for value in (*VARIABLES.values(), *SECRETS.values()) if value in seen]
    marks.unlink()
    ended(repository.report(ci), "success")
    assert not marks.exists()
    assert "Accepted" in repository.comment(4)


@pytest.mark.real
def test_staging(repository: Repository, tmp_path: Path) -> None:
    """A project that takes staging up: a merge reaches staging alone, and production by a pull request."""
    hub, api = repository.hub, repository.api

    def production() -> str:
        return hub.git("for-each-ref", "--format=%(objectname)", "refs/heads/env/production")

    model = generate(tmp_path, staging="yes")
    for part in ("k8s/overlays/staging", "k8s/argocd-staging", ".github/workflows"):
        shutil.copytree(model / part, repository.clone / part, dirs_exist_ok=True)
    pods = repository.clone / "k8s/base/horizontalpodautoscaler.yaml"
    pods.write_text(pods.read_text().replace("averageUtilization: 70", "averageUtilization: 60"))
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Release to staging first")
    repository.git("push", "--quiet", "origin", "main")
    before, main = production(), repository.git("rev-parse", "main")
    deploy = run(hub, "deploy.yaml", hub.push(main))
    ended(deploy, "success")
    assert production() == before
    staged = json.loads(hub.git("show", "env/staging:release.json"))
    assert staged["commit"] == main and staged["image"] in {
        f"{tag.rpartition(':')[0]}@{sha}" for tag, sha in hub.images.items()
    }

    event = hub.completed(deploy)
    assert list(hub.workflows(event)) == ["promote.yaml"]
    hub.machine = {name: api.environment[name] for name in TRUST}
    promote = run(hub, "promote.yaml", event)
    ended(promote, "success")
    assert promote.jobs["promote"].permissions == {"contents": "write", "pull-requests": "write"}
    assert promote.concurrency == {"group": "promote", "cancel-in-progress": False}
    pull = api.pulls[-1]
    assert (pull["head"]["ref"], pull["base"]["ref"]) == ("env/production-next", "env/production")
    assert staged["model"]["version"] in pull["title"] and staged["image"].partition("@")[2] in pull["body"]
    to_production = {"action": "opened", "pull_request": {"number": 9, "base": {"ref": "env/production"}}}
    assert hub.workflows(Event("pull_request", to_production, main)) == {}

    repository.git("fetch", "--quiet", "origin")
    repository.git("switch", "--quiet", "--detach", "origin/env/production")
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge pull request", "origin/env/production-next")
    repository.git("push", "--quiet", "origin", "HEAD:env/production", ":env/production-next")
    repository.git("switch", "--quiet", "main")
    pull["state"] = "closed"
    record = json.loads(hub.git("show", "env/production:release.json"))
    assert record["image"] == staged["image"] and record["previous"] == (before or None)
    again = run(hub, "promote.yaml", Event("workflow_dispatch", {}, main, inputs={"redeploy": False}))
    ended(again, "success")
    assert "nothing to release" in again.jobs["promote"].step("Promote").output
    assert "averageUtilization: 60" in hub.git("grep", "averageUtilization", "env/production")
    assert api.pulls[-1] is pull and not hub.git("branch", "--list", "env/production-next")
    hub.machine = {}
