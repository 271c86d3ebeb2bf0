"""The stand-in for GitHub Actions evaluates as GitHub does, keeps back what a job may not have, refuses the unknown."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import workflow_expressions as expressions
import yaml
from workflow_actions import ignored, restore_cache, save_cache
from workflow_expressions import Strict, UnknownError, condition, evaluate, render
from workflow_hub import Event, Hub
from workflow_runner import JobRun, Run, run, status

CONTEXTS: dict[str, Any] = {
    "github": Strict({"event_name": "push", "event": {"number": 7, "user": {"login": "Eve"}}}),
    "vars": {},
    "needs": {"test": {"result": "success"}, "pipeline": {"result": "failure"}},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'a' == 'A'", True),
        ("'it''s'", "it's"),
        ("null == ''", True),
        ("1 == '1'", True),
        ("'x' == 0", False),
        ("true || false && false", True),
        ("!true || true", True),
        ("!(true || true)", False),
        ("vars.RUNNER || 'ubuntu'", "ubuntu"),
        ("true && vars.RUNNER || 'ubuntu'", "ubuntu"),
        ("true && 'big' || 'ubuntu'", "big"),
        ("github.event.pull_request.head.sha", None),
        ("github.event.pull_request.number || github.event.number", 7),
        ("github.event.user.Login != 'eve'", False),
        ("join(needs.*.result, ',')", "success,failure"),
    ],
)
def test_expression(expression: str, value: Any) -> None:
    assert evaluate(expression, CONTEXTS, {"join": expressions.join}) == value


@pytest.mark.parametrize(
    "expression",
    ["secrets.TOKEN", "fromJSON('1')", "github.event_nam", "vars.A > 1", "'open", "(true", "true false", ""],
)
def test_unknown_expression(expression: str) -> None:
    with pytest.raises(UnknownError):
        evaluate(expression, CONTEXTS, {"join": expressions.join})


def test_values() -> None:
    assert render("a ${{ github.event.number }} b ${{ null }}${{ true }}", CONTEXTS) == "a 7 b true"
    assert render("${{ github.event.number }}", CONTEXTS) == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, False),
        ("github.event_name == 'push'", False),
        ("always()", True),
        ("${{ !cancelled() }}", True),
        ("failure() && github.event_name == 'push'", True),
        ("'always()' == 'x' || true", False),
    ],
)
def test_condition_after_a_failure(text: str | None, value: bool) -> None:
    assert condition(text, CONTEXTS, status(success=False, failure=True)) is value


def test_text_around_a_condition() -> None:
    with pytest.raises(UnknownError, match="always true"):
        condition("${{ false }} && false", CONTEXTS, status(success=True, failure=False))


def hub_of(folder: Path, source: Path) -> Hub:
    """Return a hub with a clone of `source`."""
    subprocess.run(["git", "clone", "--quiet", "--bare", source, folder / "origin.git"], check=True)
    return Hub(folder / "hub", folder / "origin.git")


@pytest.fixture
def hub(projects: dict[str, Path], tmp_path: Path) -> Hub:
    """A hub with the default project."""
    return hub_of(tmp_path, projects["defaults"])


def pull_request(hub: Hub, repository: str, author: str = "somebody") -> Event:
    """A pull request as far as expressions read it."""
    pull = {"number": 1, "user": {"login": author}, "head": {"ref": "change", "repo": {"full_name": repository}}}
    payload = {"action": "opened", "pull_request": pull | {"base": {"ref": "main"}}}
    return Event("pull_request", payload, hub.git("rev-parse", "main"), "refs/pull/1/merge")


def test_what_starts_what(hub: Hub) -> None:
    main = hub.git("rev-parse", "main")
    ci = Run(1, "CI", hub.push(main), {})
    for event, files in (
        (pull_request(hub, "owner/name"), ["ci.yaml"]),
        (hub.push(main), ["ci.yaml", "deploy.yaml"]),
        (Event("push", {}, main, "refs/heads/other"), []),
        (Event("workflow_dispatch", {}, main), ["deploy.yaml", "monitor.yaml", "retrain.yaml"]),
        (Event("schedule", {}, main), ["monitor.yaml", "retrain.yaml"]),
        (Event("repository_dispatch", {"action": "new-data"}, main), ["retrain.yaml"]),
        (Event("repository_dispatch", {"action": "other"}, main), []),
        (hub.completed(ci), ["report.yaml"]),
        (hub.completed(Run(2, "Deploy", hub.push(main), {})), []),
    ):
        assert list(hub.workflows(event)) == files, event


def test_monitor_without_a_log_is_skipped(hub: Hub) -> None:
    """A project that has no log yet fails no daily job, and none looks as if it had judged."""
    monitor = run(hub, "monitor.yaml", Event("schedule", {}, hub.git("rev-parse", "main")))
    assert monitor.conclusion == "skipped"


@pytest.mark.parametrize(
    ("repository", "author", "runner", "trusted"),
    [
        ("owner/name", "somebody", "big-machine", "true"),
        ("stranger/name", "stranger", "ubuntu-24.04", "false"),
        ("owner/name", "dependabot[bot]", "ubuntu-24.04", "false"),
    ],
)
def test_who_is_trusted(repository: str, author: str, runner: str, trusted: str, hub: Hub) -> None:
    """The workflow itself keeps the runner and MLflow from a fork, even if GitHub told it the variables."""
    hub.vars = {"TRAINING_RUNNER": "big-machine", "MLFLOW_TRACKING_URI": "https://mlflow.invalid"}
    event = pull_request(hub, repository, author)
    job = hub.workflows(event)["ci.yaml"]["jobs"]["pipeline"]
    contexts = hub.contexts(event)
    assert render(job["runs-on"], contexts) == runner
    environment = {"TRUSTED": expressions.text_of(render(job["env"]["TRUSTED"], contexts))}
    assert environment["TRUSTED"] == trusted
    (step,) = (step for step in job["steps"] if step["name"] == "Pipeline")
    address = render(step["env"]["MLFLOW_TRACKING_URI"], contexts | {"env": environment})
    assert bool(address) is (trusted == "true")


@pytest.mark.parametrize(("file", "name"), [("ci.yaml", "pipeline"), ("deploy.yaml", "deploy")])
@pytest.mark.parametrize(("host", "password"), [("git.example", "the-token"), ("evil.example", None)])
def test_git_gives_the_token_to_its_own_server_alone(
    file: str, name: str, host: str, password: str | None, hub: Hub
) -> None:
    hub.url = "https://git.example"
    event = hub.push(hub.git("rev-parse", "main"))
    contexts = hub.contexts(event)
    entries = hub.workflows(event)[file]["jobs"][name]["env"].items()
    settings = {key: expressions.text_of(render(value, contexts)) for key, value in entries if key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "credential", "fill"],
        input=f"protocol=https\nhost={host}\n\n",
        env=os.environ | settings | {"GITHUB_TOKEN": "the-token", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (f"password={password}\n" in done.stdout) if password else "the-token" not in done.stdout


def test_redeploy(hub: Hub) -> None:
    main = hub.git("rev-parse", "main")
    for inputs, value in (({"redeploy": True}, "1"), ({"redeploy": False}, ""), ({}, "")):
        event = Event("workflow_dispatch", {}, main, inputs=inputs)
        job = hub.workflows(event)["deploy.yaml"]["jobs"]["deploy"]
        assert render(job["env"]["REDEPLOY"], hub.contexts(event)) == value


#: A workflow of the tests' own, without the steps of its one job.
PROBE = """
name: Probe
on:
  push:
    branches: [main]
permissions: {}
concurrency:
  group: probe
jobs:
  probe:
    runs-on: ubuntu-24.04
    permissions: PERMISSIONS
    steps:
"""
CHECK_OUT = """
- name: Check out
  uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1  # v7.0.1
  with:
    persist-credentials: false
    fetch-depth: 0
"""
UPLOAD = "actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a  # v7.0.1"


def probe(folder: Path, steps: str, permissions: str = "{}") -> Run:
    """Run steps as a workflow of a repository that holds nothing else, for a push to main."""
    source = folder / "source"
    (source / ".github/workflows").mkdir(parents=True)
    text = PROBE.replace("PERMISSIONS", permissions) + textwrap.indent(textwrap.dedent(steps), "      ")
    (source / ".github/workflows/probe.yaml").write_text(text)
    git = ["git", "-C", str(source)]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "Probe"], check=True)
    hub = hub_of(folder, source)
    hub.secrets = {"TOKEN": "the-secret"}
    return run(hub, "probe.yaml", hub.push(hub.git("rev-parse", "main")))


@pytest.mark.parametrize(
    "steps",
    [
        "- {name: A, run: 'true', shell: bash}",
        "- {name: A, run: 'true', env: {A: '${{ steps.later.outputs.a }}'}}",
        "- {name: A, run: 'true', env: {A: '${{ env.NOT_SET }}'}}",
        "- {name: A, run: 'true', if: secrets.TOKEN != ''}",
        "- {name: A, id: a, run: 'true'}\n- {name: B, run: 'true', if: steps.a.outputs.b}",
        "- {name: A, run: 'true'}\n  timeout-minutes: 5",
        "- name: A\n  uses: actions/checkout@v7",
        "- name: A\n  uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",
        f"- name: A\n  uses: actions/setup-java@{'0' * 40}  # v1",
        f"{CHECK_OUT}    submodules: true\n",
    ],
)
def test_unknown_step(steps: str, tmp_path: Path) -> None:
    with pytest.raises((UnknownError, yaml.YAMLError)):
        probe(tmp_path, steps, "{contents: read}")


def test_token_and_secrets_reach_a_step_through_its_env_alone(tmp_path: Path) -> None:
    steps = """
    - name: Without
      run: env
    - name: With
      run: echo "$GITHUB_TOKEN $OTHER"
      env:
        GITHUB_TOKEN: ${{ github.token }}
        OTHER: ${{ secrets.TOKEN }}
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-caller")
        job = probe(tmp_path, steps).jobs["probe"]
    given = job.step("With").output.split()
    assert given[0].startswith("ghs_") and given[1] == "the-secret"
    without = job.step("Without").output
    assert "CI=true" in without
    assert not [value for value in (*given, "of-the-caller", str(Path.home() / ".")) if f"={value}\n" in without]


@pytest.mark.parametrize(("permissions", "result"), [("{contents: read}", "failure"), ("{contents: write}", "success")])
@pytest.mark.parametrize("handed", [True, False])
def test_push_needs_a_token_that_may(permissions: str, result: str, handed: bool, tmp_path: Path) -> None:
    given = "env: {GITHUB_TOKEN: '${{ github.token }}'}" if handed else ""
    steps = f"{CHECK_OUT}\n- name: Push\n  run: git push origin HEAD:refs/heads/env/production\n  {given}"
    job = probe(tmp_path, steps, permissions).jobs["probe"]
    assert job.step("Push").result == (result if handed else "failure")


def test_check_out_needs_its_permission(tmp_path: Path) -> None:
    assert "contents: read is missing" in probe(tmp_path, CHECK_OUT).told()


def test_outputs_failures_and_artifacts(tmp_path: Path) -> None:
    """Outputs go on, a failure skips what does not ask for it, and an artifact begins where its paths part."""
    steps = f"""
    - name: Write
      id: write
      run: |
        mkdir -p a/b a/.hidden
        touch a/b/one a/two a/.hidden/three a/not-named
        printf 'single=1\\nlines<<END\\nx\\ny\\nEND\\n' >> "$GITHUB_OUTPUT"
        echo '# Told' >> "$GITHUB_STEP_SUMMARY"
    - name: Tolerated
      continue-on-error: true
      run: exit 3
    - name: Read
      run: echo "$GIVEN" && false
      env:
        GIVEN: ${{{{ steps.write.outputs.single }}}}, ${{{{ steps.write.outputs.lines }}}}
    - name: Left out
      run: echo never
    - name: Keep
      if: ${{{{ !cancelled() }}}}
      uses: {UPLOAD}
      with:
        name: kept
        path: |
          a/b/
          a/.hidden/
          a/two
    """
    ran = probe(tmp_path, steps)
    job = ran.jobs["probe"]
    assert [step.result for step in job.steps] == ["success", "success", "failure", "skipped", "success"]
    assert job.step("Read").output.startswith("1, x\ny\n")
    assert job.summary == "# Told\n"
    assert ran.conclusion == "failure"
    kept = job.hub.artifact(ran.id, "kept")
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {"b/one", "two"}


def test_cache_of_a_pull_request_is_not_mains(tmp_path: Path) -> None:
    """A run restores from its own ref, then from main; by key, then by its beginning; and saves nothing over a hit."""
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "origin.git"], check=True)
    hub = Hub(tmp_path / "hub", tmp_path / "origin.git")
    change, main = "refs/pull/1/merge", "refs/heads/main"

    def turn(ref: str, key: str) -> str | None:
        path = hub.workspace / "kept"
        shutil.rmtree(path, ignore_errors=True)
        event = Event("push", {}, "", ref)
        contexts = hub.contexts(event) | {"needs": {}}
        job = JobRun(hub, Run(1, "x", event, {}), "x", {"runs-on": "x", "permissions": {}}, contexts)
        restore_cache(job, {"path": "kept", "key": key, "restore-keys": "k-"})
        found = (path / "from").read_text() if path.exists() else None
        path.mkdir(parents=True, exist_ok=True)
        (path / "from").write_text(f"{ref} {key}")
        save_cache(job, {"path": "kept", "key": key})
        return found

    assert turn(change, "k-1") is None
    assert turn(main, "k-1") is None
    assert turn(change, "k-2") == f"{change} k-1"
    assert turn("refs/pull/2/merge", "k-3") == f"{main} k-1"
    assert turn(main, "k-1") == f"{main} k-1"
    assert turn(main, "k-4") == f"{main} k-1"


@pytest.mark.parametrize(
    ("path", "left_out"),
    [("src/a.py", False), ("src/x/__pycache__/a.pyc", True), ("__pycache__/a.pyc", True), ("data/a", True)],
)
def test_rules_of_dockerignore(path: str, left_out: bool) -> None:
    assert ignored(Path(path), ["*", "!/src", "**/__pycache__"]) is left_out
