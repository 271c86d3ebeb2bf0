"""The changes of docs/your-model.md, as their diffs stand there: an owner edits his package and nothing turns red."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import environment, generate, make, served

#: Heading of docs/your-model.md, its diffs in their order: what they are called here.
CHANGES = {
    "Another network": ["perceptron", "transformer"],
    "Another loss": ["focal loss"],
    "A derived feature": ["derived feature"],
    "Another metric": ["metric"],
    "A table in a database": ["database"],
    "A check of your own": ["check"],
}
NAMES = [name for names in CHANGES.values() for name in names]

#: Files that a change may touch, as the document says of it.
TOUCHED = {
    "perceptron": {"model.py"},
    "transformer": {"model.py"},
    "focal loss": {"train.py"},
    "derived feature": {"features.py"},
    "metric": {"metrics.py", "params.yaml"},
    "database": {"prepare.py", "params.yaml"},
    "check": {"checks.py"},
}

#: Makes the table a DuckDB file, as an owner has one.
DATABASE = """
import duckdb
with duckdb.connect("data/raw.duckdb") as database:
    database.execute("CREATE TABLE patients AS SELECT * FROM 'data/raw.csv'")
"""


def diffs(project: Path) -> dict[str, str]:
    """Return the diffs of the project's docs/your-model.md by name."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", (project / "docs/your-model.md").read_text(), flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        blocks = re.findall(r"^```diff\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        found |= dict(zip(CHANGES.get(heading, []), blocks, strict=True))
    return found


def test_the_document_has_each_change(projects: dict[str, Path]) -> None:
    """Each diff applies to a fresh project, and touches the files that it is said to touch."""
    project = projects["defaults"]
    found = diffs(project)
    assert [*found] == NAMES
    for name, diff in found.items():
        done = subprocess.run(
            ["git", "apply", "--numstat", "--check", "-"], cwd=project, input=diff, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert {Path(line.split("\t")[2]).name for line in done.stdout.splitlines()} == TOUCHED[name]


@pytest.fixture(scope="module")
def origin(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project with its environments and its data, and a bare repository as its origin."""
    project = generate(tmp_path_factory.mktemp("changed"))
    make(project, "setup")
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", "  epochs: 40", settings))
    run(project, ".venv/pipeline/bin/dvc", "pull", "--quiet", "data/raw.csv.dvc")
    run(project, "git", "commit", "--quiet", "--all", "--message=Train less")
    run(project, "git", "init", "--quiet", "--bare", "../origin.git")
    run(project, "git", "remote", "add", "origin", "../origin.git")
    run(project, "git", "push", "--quiet", "origin", "main")
    return project


@pytest.fixture
def changed(origin: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The project with one change; afterwards it is as it was."""
    name, start = request.param, run(origin, "git", "rev-parse", "HEAD")
    subprocess.run(["git", "apply", "-"], cwd=origin, input=diffs(origin)[name], text=True, check=True)
    if name == "database":
        run(origin, ".venv/pipeline/bin/python", "-c", DATABASE)
        run(origin, ".venv/pipeline/bin/dvc", "add", "--quiet", "data/raw.duckdb")
    run(origin, "git", "add", "--all")
    run(origin, "git", "commit", "--quiet", f"--message={name}")
    yield origin
    run(origin, "git", "reset", "--quiet", "--hard", start)
    run(origin, "git", "push", "--quiet", "--force", "origin", "HEAD:main")
    if "env/production" in run(origin, "git", "ls-remote", "origin"):
        run(origin, "git", "push", "--quiet", "origin", "--delete", "env/production")
    make(origin, "setup")


def run(project: Path, *command: str) -> str:
    """Run a command in the project and return what it printed; its output is what a failure says, too."""
    done = subprocess.run(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout.strip()


@pytest.mark.real
@pytest.mark.parametrize("changed", NAMES, indirect=True)
def test_linters_and_tests_of_the_project_pass(changed: Path) -> None:
    make(changed, "lint")
    assert re.search(r"\d+ passed", make(changed, "test"))


@pytest.mark.full
@pytest.mark.real
@pytest.mark.parametrize("changed", NAMES, indirect=True)
def test_everything_after_it_works(changed: Path, request: pytest.FixtureRequest) -> None:
    """Pipeline, gate, report, release, server, batch and monitor."""
    name = request.node.callspec.params["changed"]
    make(changed, "pipeline")
    run(changed, "git", "add", "dvc.lock")
    run(changed, "git", "commit", "--quiet", "--message=Train")
    run(changed, "git", "push", "--quiet", "origin", "HEAD:main")
    make(changed, "verify")
    make(changed, "gate")
    report = make(changed, "report")
    make(changed, "plan")
    make(changed, "deploy")
    schema = json.loads((changed / "data/prepared/schema.json").read_text())
    features = {feature["name"]: feature for feature in schema["features"]}
    with (changed / "data/raw.csv").open(newline="") as file:
        rows = [{key: float(row[key]) for key in row if key != "diagnosis"} for row in csv.DictReader(file)]
    with served(changed) as url:
        body = json.dumps({"instances": rows}).encode()
        request_ = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request_, timeout=60) as response:
            answers = json.load(response)["predictions"]
    make(changed, "batch", "INPUT=data/raw.csv", "OUTPUT=predicted.csv")
    with (changed / "predicted.csv").open(newline="") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == [answer["label"] for answer in answers]
    make(changed, "monitor")
    monitored = json.loads((changed / "reports/monitor.json").read_text())
    assert monitored["rows"] == len(rows)
    if name == "derived feature":
        assert features["worst to mean area"]["derived"] == ["worst area", "mean area"]
        assert "worst to mean area" in {check["column"] for check in monitored["checks"]}
    if name == "metric":
        assert "balanced_accuracy" in report
        assert json.loads((changed / "reports/gate.json").read_text())["metric"] == "balanced_accuracy"
        assert "balanced_accuracy" in make(changed, "tune", "TRIALS=1")
    if name == "check":
        checked = json.loads((changed / "reports/validate_data.json").read_text())
        assert "Worst Is Largest" in {condition["check"] for condition in checked["conditions"]}
