"""`make fleet`: the page of ten repositories, of which one is broken, one hostile, and one has no monitor."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT, environment

NEWEST = re.findall(
    r'__version__ = "(.+)"', (ROOT / "{{cookiecutter.project_slug}}/src/gitops/__init__.py").read_text()
)[0]
TODAY = datetime.now(UTC).isoformat(timespec="seconds")
LAST_WEEK = (datetime.now(UTC) - timedelta(days=7)).isoformat(timespec="seconds")

MAIN, PRODUCTION, MONITOR = "refs/heads/main", "refs/heads/env/production", "refs/monitor/last"
INIT, RELEASE, RESULT = "src/gitops/__init__.py", "release.json", "monitor.json"

#: What would be markup, a mention or another cell.
HOSTILE = '<script>alert(1)</script> | @everyone ![x](http://evil.example/x.png) "><img src=x onerror=alert(1)>'

Files = dict[str, dict[str, str]]


def init(version: str = NEWEST) -> dict[str, str]:
    return {INIT: f'"""Words."""\n\n__version__ = "{version}"\n', "data/rows.csv": "a secret row\n"}


def release(debt: Mapping[str, float] | None = None, name: str = "model") -> dict[str, str]:
    record: dict[str, Any] = {"model": {"name": name, "version": "1a2b3c4d5e6f"}, "metrics": {}}
    return {RELEASE: json.dumps(record | ({"debt": debt} if debt else {}))}


def monitor(
    status: str = "ok", time: str = TODAY, value: tuple[float, float, float] | None = None, **more: Any
) -> dict[str, str]:
    worth = dict(zip(("value", "low", "high"), value, strict=True)) | {"unit": "EUR"} if value else None
    found = {"status": status, "time": time, "model_version": "1a2b3c4d5e6f", "rows": 250, "value": worth}
    return {RESULT: json.dumps(found | more)}


def points(lowest: float) -> dict[str, float]:
    return {"data": 6.0, "model": lowest, "infrastructure": 5.5, "monitoring": 4.5}


#: Ten projects by name; none is one that cannot be reached.
FLEET: dict[str, Files | None] = {
    "fine": {MAIN: init(), PRODUCTION: release(points(4.0)), MONITOR: monitor(value=(12345.6, 11000.0, 13000.0))},
    "no-debt": {MAIN: init(), PRODUCTION: release(), MONITOR: monitor("too_small")},
    "drifted": {MAIN: init(), PRODUCTION: release(points(3.5)), MONITOR: monitor("drift")},
    "loses": {MAIN: init(), PRODUCTION: release(points(1.0)), MONITOR: monitor(value=(-50.25, -80.0, -20.0))},
    "silent": {MAIN: init(), PRODUCTION: release(points(2.0)), MONITOR: monitor(time=LAST_WEEK)},
    "unmonitored": {MAIN: init(), PRODUCTION: release(points(2.5))},
    "unreleased": {MAIN: init()},
    "old": {MAIN: init("0.0.1"), PRODUCTION: release(points(2.0)), MONITOR: monitor()},
    "broken": {MAIN: init(), PRODUCTION: {RELEASE: '{"model": '}, MONITOR: monitor()},
    "hostile": {
        MAIN: {INIT: f"__version__ = '{HOSTILE}'"},
        PRODUCTION: release(points(1.0), name=HOSTILE),
        MONITOR: monitor(value=(1.0, 0.5, 2.0), status="ok") | {"rows.csv": "another secret row"},
    },
}


def git(folder: Path, *arguments: str, given: str = "") -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], input=given, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_repository(folder: Path, files: Files) -> None:
    """A bare repository that has one commit at each ref, with those files."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main")
    git(folder, "config", "uploadpack.allowFilter", "true")
    for ref, contents in files.items():
        git(folder, "read-tree", "--empty")
        for name, text in contents.items():
            blob = git(folder, "hash-object", "-w", "--stdin", given=text)
            git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
        git(folder, "update-ref", ref, git(folder, "commit-tree", git(folder, "write-tree"), "-m", "Commit"))


def fleet(tmp_path: Path, changed: dict[str, str] | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `make fleet` in a copy of what it needs of the template."""
    copy = tmp_path / "template"
    package = "{{cookiecutter.project_slug}}/src/gitops"
    shutil.copytree(ROOT / "tools", copy / "tools", dirs_exist_ok=True)
    shutil.copytree(ROOT / package, copy / package, dirs_exist_ok=True)
    shutil.copy(ROOT / "Makefile", copy)
    command = ["make", "fleet", f"PYTHON={sys.executable}", *(f"{name}={value}" for name, value in variables.items())]
    return subprocess.run(
        command, cwd=copy, env=environment() | (changed or {}), capture_output=True, text=True, check=False
    )


def pages(tmp_path: Path) -> tuple[str, str]:
    folder = tmp_path / "template/build"
    return (folder / "fleet.md").read_text(encoding="utf-8"), (folder / "fleet.html").read_text(encoding="utf-8")


def rows_of(markdown: str) -> dict[str, list[str]]:
    """Return the table's cells by the repository's name, in the table's order."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")][2:]
    rows = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]
    return {row[0].rpartition("/")[2]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The two pages of FLEET and of a repository that is not there."""
    tmp_path = tmp_path_factory.mktemp("fleet")
    for name, files in FLEET.items():
        make_repository(tmp_path / "org" / f"{name}.git", files or {})
    urls = [f"file://{tmp_path}/org/{name}.git" for name in (*FLEET, "nowhere")]
    (tmp_path / "urls").write_text("# ours\n\n" + "\n".join(urls))
    done = fleet(tmp_path, REPOSITORIES=str(tmp_path / "urls"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Projects: 11, needing attention: 9. Written: build/fleet.html, build/fleet.md\n"
    return pages(tmp_path)


def test_what_needs_attention_comes_first(shown: tuple[str, str]) -> None:
    order = list(rows_of(shown[0]))
    assert order[:3] == ["broken", "nowhere", "hostile"]
    assert order[3:] == ["loses", "drifted", "silent", "unmonitored", "unreleased", "old", "no-debt", "fine"]
    page = re.findall(r"<td>org/([\w-]+)</td>", shown[1])
    assert page == order


def test_each_cell(shown: tuple[str, str]) -> None:
    rows = rows_of(shown[0])
    new = "0 hours"
    model = "model 1a2b3c4d5e6f"
    assert rows["fine"] == ["", NEWEST, model, new, "4 (model)", "none, 0 hours ago", "12,346 EUR (11,000 to 13,000)"]
    assert rows["no-debt"][4:] == ["not known", "too few rows, 0 hours ago", "not known"]
    assert rows["drifted"][0] == "drift" and rows["drifted"][4] == "3.5 (model)"
    assert rows["loses"][0] == "it costs more than it earns" and rows["loses"][6] == "-50.25 EUR (-80 to -20)"
    assert rows["silent"][0] == "the monitor has not succeeded for 7 days"
    assert rows["unmonitored"][0] == "not monitored" and rows["unmonitored"][5] == "never monitored"
    assert rows["unreleased"] == [
        "nothing is released",
        NEWEST,
        "none",
        "",
        "not known",
        "never monitored",
        "not known",
    ]
    assert rows["old"][:2] == [f"another version of the template than {NEWEST}", "0.0.1"]


def test_a_broken_repository_is_a_row_that_says_so(shown: tuple[str, str]) -> None:
    rows = rows_of(shown[0])
    assert rows["broken"][0] == "release.json of env/production is damaged"
    assert rows["broken"][1] == NEWEST and rows["broken"][5] == "none, 0 hours ago"  # what can be read is shown
    assert rows["nowhere"][0].startswith("cannot be read: git ls-remote:")
    assert rows["nowhere"][1:] == ["not known"] * 6


def test_text_of_a_repository_is_text(shown: tuple[str, str]) -> None:
    markdown, page = shown
    assert "<script" not in markdown + page and "<img" not in markdown + page
    assert "&lt;script&gt;" in page and "http://evil" not in markdown and "@everyone" not in markdown
    assert rows_of(markdown)["hostile"][0].startswith("src/gitops/") and len(rows_of(markdown)["hostile"]) == 7
    assert "secret row" not in markdown + page


@pytest.mark.parametrize(
    ("ref", "name", "text"),
    [
        (MONITOR, RESULT, "[" * 100_000),
        (MONITOR, RESULT, "[]"),
        (MONITOR, RESULT, monitor("fine")[RESULT]),
        (MONITOR, RESULT, monitor(time="0001-01-01T00:00:00+23:59")[RESULT]),
        (MONITOR, RESULT, monitor(time="2026-01-01")[RESULT]),
        (MONITOR, RESULT, monitor(value=(float("nan"), 1, 2))[RESULT]),
        (MONITOR, RESULT, monitor(value=(1, 2, 3))[RESULT].replace("2", "9" * 5000)),
        (PRODUCTION, RELEASE, release({"data": 1.0})[RELEASE]),
        (PRODUCTION, RELEASE, release({**points(1), "model": "x"})[RELEASE]),  # type: ignore[dict-item]
        (PRODUCTION, RELEASE, '{"model": {"name": 1, "version": "v"}}'),
        (PRODUCTION, RELEASE, " " * (1 << 20) + "{}"),
        (PRODUCTION, "other.json", "{}"),
        (MAIN, INIT, "version = 1"),
    ],
)
def test_damage_is_a_problem_of_one_row(ref: str, name: str, text: str, tmp_path: Path) -> None:
    files = {MAIN: init(), PRODUCTION: release(), MONITOR: monitor()}
    make_repository(tmp_path / "damaged", files | {ref: {name: text}})
    make_repository(tmp_path / "whole", files)
    (tmp_path / "urls").write_text(f"{tmp_path}/damaged\n{tmp_path}/whole\n")
    done = fleet(tmp_path, REPOSITORIES=str(tmp_path / "urls"))
    assert done.returncode == 0, done.stderr
    rows = rows_of(pages(tmp_path)[0])
    assert re.search("damaged|has no|more than", rows["damaged"][0]) and rows["whole"][0] == ""


def test_no_more_than_the_three_files_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import fleet_project

    make_repository(tmp_path / "origin", {MAIN: init(), PRODUCTION: release(), MONITOR: monitor()})
    project = fleet_project.read(f"file://{tmp_path}/origin", tmp_path / "fetched")
    assert project.problems == [] and project.version == NEWEST
    objects = git(tmp_path / "fetched", "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)").split()
    assert objects.count("blob") == 3


def test_github_is_asked_for_the_list_alone(tmp_path: Path) -> None:
    """With the topic by which the platform finds a repository."""
    make_repository(tmp_path / "org/one", {MAIN: init(), PRODUCTION: release(), MONITOR: monitor()})
    gh = tmp_path / "bin/gh"
    gh.parent.mkdir()
    gh.write_text(f"""#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho '[{{"url": "file://{tmp_path}/org/one"}}]'\n""")
    gh.chmod(0o755)
    done = fleet(tmp_path, {"PATH": f"{gh.parent}:{os.environ['PATH']}"}, ORG="acme")
    assert done.returncode == 0 and done.stdout.startswith("Projects: 1, needing attention: 0."), done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    [topic] = re.findall(r"labelMatch: \^(.+)\$", (ROOT / "k8s/fleet/tenants.yaml").read_text())
    assert len(asked) == 1 and asked[0].startswith(f"repo list acme --topic={topic} ")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "give one of the two"),
        ({"ORG": "a", "REPOSITORIES": "b"}, "give one of the two"),
        ({"ORG": "a; b"}, "the name of an organisation"),
        ({"REPOSITORIES": "/nowhere"}, "cannot be read"),
        ({"REPOSITORIES": "/dev/null"}, "there is no repository"),
    ],
)
def test_errors(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    done = fleet(tmp_path, None, **variables)
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr


def test_a_url_runs_no_program_and_its_password_is_not_shown(tmp_path: Path) -> None:
    urls = [f"ext::touch {tmp_path}/ran", "https://me:s3cret@127.0.0.1:9/org/x.git", "--upload-pack=touch x"]
    (tmp_path / "urls").write_text("\n".join(urls))
    done = fleet(tmp_path, REPOSITORIES=str(tmp_path / "urls"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert not [text for text in (*pages(tmp_path), done.stdout, done.stderr) if "s3cret" in text]
