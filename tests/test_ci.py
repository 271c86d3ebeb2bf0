"""The template's own CI runs every test, and none that is skipped passes."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import yaml
from projects import ROOT

CI: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())


def commands(job: str) -> str:
    return "\n".join(step.get("run", "") for step in CI["jobs"][job]["steps"])


def test_a_test_that_did_not_run_is_red(pytestconfig: pytest.Config) -> None:
    assert CI["env"]["NO_SKIPS"] == "1"
    assert not [name for name, job in CI["jobs"].items() if "NO_SKIPS" in str(job)]
    hooks = pytestconfig.hook.pytest_runtest_makereport.get_hookimpls()
    assert any(hook.function.__module__ == "no_skips" for hook in hooks)


def test_its_jobs_run_every_test() -> None:
    chosen = {job: re.search(r"""ARGS="-m (?:'(.+)'|(\w+))\"""", commands(job)) for job in ("generate", "full")}
    run = [next(filter(None, found.groups())) for found in chosen.values() if found]
    assert len(run) == 2
    assert "make test-root" in commands("images")
    assert "-m root $(ARGS)" in (ROOT / "Makefile").read_text()
    for marked in itertools.product([False, True], repeat=3):
        marks = dict(zip(("real", "full", "root"), marked, strict=True))
        assert any(eval(expression, {}, marks) for expression in [*run, "root"]), marks  # noqa: S307


def test_all_jobs_are_required() -> None:
    last = CI["jobs"]["pass"]
    assert {*last["needs"], "pass"} == CI["jobs"].keys()
    assert commands("pass") == f'test "$RESULTS" = {",".join("success" for _ in last["needs"])}'


def test_what_the_projects_use_is_there() -> None:
    """CML, the same release: its tests run with it where all has to run."""

    def cml(text: str) -> list[str]:
        return re.findall(r"uses: (iterative/setup-cml@.+)\n +with:\n +version: (\S+).*\n +vega: (\S+)", text)

    report = (ROOT / "{{cookiecutter.project_slug}}/.github/workflows/report.yaml").read_text()
    assert cml((ROOT / ".github/workflows/ci.yaml").read_text()) == cml(report) != []
