"""The stand-in for GitHub Actions evaluates as GitHub does, keeps back what a job may not have, refuses the unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_expressions import Strict, UnknownError, condition, evaluate, render
from workflow_images import ignored
from workflow_job import status
from workflow_probe import CHECK_OUT, UPLOAD, probe

CONTEXTS: dict[str, Any] = {
    "github": Strict(
        {"event_name": "push", "event": {"number": 7, "user": {"login": "Eve"}, "pulls": [{"number": 8}]}}
    ),
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
        ("startsWith('refs/heads/Dependabot/x', 'refs/heads/dependabot/')", True),
        ("!startsWith('x', 'y') && 'no' || 'yes'", "no"),
        ("github.event.pulls[0].number", 8),
        ("github.event.pulls[1]", None),
        ("github.event.none[0]", None),
    ],
)
def test_expression(expression: str, value: Any) -> None:
    assert evaluate(expression, CONTEXTS) == value


@pytest.mark.parametrize(
    "expression",
    ["secrets.TOKEN", "fromJSON('1')", "github.event_nam", "vars.A > 1", "'open", "(true", "true false", ""],
)
def test_unknown_expression(expression: str) -> None:
    with pytest.raises(UnknownError):
        evaluate(expression, CONTEXTS)


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


def test_credentials_stay_only_where_a_job_pushes(tmp_path: Path) -> None:
    kept = CHECK_OUT.replace("    persist-credentials: false\n", "")
    assert "every later step could push" in probe(tmp_path, kept, "{contents: read}").told()


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


@pytest.mark.parametrize(
    ("path", "left_out"),
    [("src/a.py", False), ("src/x/__pycache__/a.pyc", True), ("__pycache__/a.pyc", True), ("data/a", True)],
)
def test_rules_of_dockerignore(path: str, left_out: bool) -> None:
    assert ignored(Path(path), ["*", "!/src", "**/__pycache__"]) is left_out
