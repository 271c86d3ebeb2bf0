"""One project for real: its environments, tests, linters and pipeline."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import ROOT, generate, gitops_tests, make
from test_owner_changes import DATABASE, NAMES, diffs

pytestmark = pytest.mark.real

#: Prints the names under which an environment's packages are imported.
IMPORTED = "import importlib.metadata as m; print(*m.packages_distributions())"

#: The ML Test Score of a fresh project whose owner has run its tests and the pipeline, without GitHub.
FRESH = {"data": 2, "model": 1.5, "infrastructure": 2, "monitoring": 0.5}

#: Tests of the score that lose their half point by any change of the owner's package, until it is committed, tested and
#: trained: the tests of the code, that the model is what is committed, and all that says something of the model.
CHANGED = {"Data 2", "Data 7", "Model 1", "Model 5", "Infra 1", "Infra 2", "Infra 3", "Infra 5", "Monitor 5"}

#: Changes of what makes the splits or checks them, which lose their validation besides, Data 1.
SPLITS = {"derived feature", "database", "check"}


@pytest.fixture(scope="module")
def made(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project with its environments, in which the tests below go on in order."""
    project = generate(tmp_path_factory.mktemp("real"))
    make(project, "setup")
    return project


@pytest.fixture(scope="module")
def tested(made: Path) -> str:
    """What `make test` prints in the project."""
    return make(made, "test")


@pytest.fixture(scope="module")
def trained(made: Path) -> Path:
    """The project after its first pipeline."""
    make(made, "pipeline")
    return made


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_right_environments_are_left_alone(made: Path) -> None:
    assert make(made, "setup") == ""


def test_names_of_dependencies_are_refused_for_the_package(made: Path) -> None:
    """The list in the hook is complete: every package that an environment imports is in it."""
    hook = (ROOT / "hooks/pre_gen_project.py").read_text()
    refused = set(re.split(r'"""', hook[hook.index("IMPORTED = set(") :])[1].split())
    for environment in ("pipeline", "validate", "serve"):
        imported = run(made / f".venv/{environment}/bin/python", "-c", IMPORTED, cwd=made).split()
        names = {name for name in imported if re.fullmatch(r"[a-z][a-z0-9_]+", name) and "__mypyc" not in name}
        assert names - refused - set(sys.stdlib_module_names) - {made.name.replace("-", "_")} == set()


def test_bundled_table_is_what_its_program_writes(made: Path) -> None:
    program = "import sys, bundled_data; sys.stdout.buffer.write(bundled_data.table())"
    table = run(made / ".venv/pipeline/bin/python", "-c", program, cwd=ROOT / "tools")
    assert table.encode() == next((made / "dvc-remote/files/md5/0d").iterdir()).read_bytes()


def test_bundled_pair_is_what_its_program_writes(made: Path) -> None:
    program = "import sys, bundled_data; sys.stdout.buffer.write(b''.join(bundled_data.pair()))"
    tables = run(made / ".venv/pipeline/bin/python", "-c", program, cwd=ROOT / "tools").encode()
    bundle = ROOT / "{{cookiecutter.project_slug}}/feature-store"
    pointers = [(bundle / f"{name}.csv.dvc").read_text() for name in ("raw", "features")]
    names = [re.findall(r"md5: (..)(.+)", pointer)[0] for pointer in pointers]
    assert tables == b"".join((bundle / "dvc-remote/files/md5" / Path(*name)).read_bytes() for name in names)


def test_unit_tests(tested: str) -> None:
    assert re.search(r"\d+ passed", tested)


def test_gitops(made: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]) -> None:
    """The tests of the template's own package, in tests/gitops; conftest.py prints which were skipped."""
    monkeypatch.setenv("RACES", "50")
    said = run(*gitops_tests(made), cwd=made)
    assert re.search(r"\d+ passed", said)
    for line in re.findall(r"^SKIPPED .*", said, re.MULTILINE):
        record_property("gitops", line)


def test_lint(made: Path) -> None:
    """Right after generation nothing is to be mended."""
    make(made, "lint")
    assert run("git", "status", "--porcelain", cwd=made) == ""
    run(made / ".venv/pipeline/bin/mypy", "src", cwd=made)  # the project's own linters leave gitops to the template


def test_pipeline(trained: Path) -> None:
    assert run("git", "status", "--porcelain", cwd=trained) == "?? dvc.lock\n"
    assert json.loads((trained / "evaluation/metrics.json").read_text())["metrics"]["roc_auc"]["value"] > 0.95
    assert "Running stage" not in make(trained, "pipeline")


def debt(project: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Run `make debt`, and return the points by section and by test."""
    printed = make(project, "debt")
    assert "MLOps maturity: level 0 of 2; level 1 lacks a request log to monitor (" in printed
    found = json.loads((project / "reports/debt.json").read_text())
    assert found["score"] == min(found["sections"].values())
    assert "its evidence cannot be read" not in printed
    return found["sections"], {test["id"]: test["value"] for test in found["tests"]}


def test_debt(trained: Path, tested: str) -> None:
    sections, points = debt(trained)
    assert sections == FRESH and 1 not in points.values()


@pytest.mark.parametrize("name", NAMES)
def test_debt_of_an_owners_change(name: str, trained: Path, tested: str) -> None:
    """Each of docs/your-model.md loses what it makes untested or untrained, and nothing else; undone, all is back."""
    _, before = debt(trained)
    diff = trained / "change.diff"
    diff.write_text(diffs(trained)[name])
    run("git", "apply", diff.name, cwd=trained)
    if name == "database":
        run(trained / ".venv/pipeline/bin/python", "-c", DATABASE, cwd=trained)
        run(trained / ".venv/pipeline/bin/dvc", "add", "--quiet", "data/raw.duckdb", cwd=trained)
    sections, points = debt(trained)
    lost = {"Data 1"} if name in SPLITS else set()
    assert {test for test in points if points[test] != before[test]} == CHANGED | lost
    assert sections == {"data": 0.5 if lost else 1, "model": 0.5, "infrastructure": 0, "monitoring": 0}
    run("git", "checkout", "--quiet", "--", ".", cwd=trained)
    run("git", "clean", "--quiet", "--force", "-x", diff.name, "data/raw.duckdb", "data/raw.duckdb.dvc", cwd=trained)
    (trained / "build/tests.xml").touch()  # the files are what was tested, and younger
    assert debt(trained) == (FRESH, before)


def test_killed_training_resumes_to_the_same_model(trained: Path, tmp_path: Path) -> None:
    """`make pipeline`, killed while it trains and started again, ends with the very bytes of the unbroken run."""
    whole = (trained / "model/model.pt2").read_bytes()
    shutil.copyfile(trained / "dvc.lock", tmp_path / "dvc.lock")
    train = [str(trained / ".venv/pipeline/bin/dvc"), "repro", "--force", "--single-item", "train"]
    process = subprocess.Popen(
        train, cwd=trained, process_group=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(6000):
        if saved := list(trained.glob(".checkpoints/*/checkpoint.pt")):
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert saved
    (trained / ".dvc/tmp/rwlock").unlink(missing_ok=True)
    assert not (trained / "model/model.pt2").exists()
    assert "resuming after epoch" in run(*train, cwd=trained)
    assert (trained / "model/model.pt2").read_bytes() == whole
    shutil.copyfile(tmp_path / "dvc.lock", trained / "dvc.lock")
    make(trained, "pipeline")


def test_mlflow_gives_the_model_back(trained: Path) -> None:
    """The logged run holds parameters, curve, metrics and versions, and its model predicts what evaluation saw."""
    program = """
import json, math, mlflow, pandas, pyarrow.fs
run_id = json.load(open("model/run.json"))["run_id"]
mlflow.set_tracking_uri("sqlite:///mlflow.db")
run = mlflow.get_run(run_id).data
assert run.params["train.epochs"] and run.tags["git_commit"] and len(run.tags["data_md5"]) == 32, run
evaluated = json.load(open("evaluation/metrics.json"))["metrics"]["roc_auc"]["value"]
assert run.metrics["test_roc_auc"] == evaluated
curve = mlflow.MlflowClient().get_metric_history(run_id, "val_loss")
assert len(curve) == len(pandas.read_csv("model/learning_curve.csv"))
files = pyarrow.fs.LocalFileSystem()  # see artifacts.read_parquet
test = pandas.read_parquet("data/prepared/test.parquet", filesystem=files)
predicted = pandas.read_parquet("evaluation/predictions.parquet", filesystem=files)
answers = mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(test)
wanted = predicted[predicted["split"] == "test"]
assert [answer["label"] for answer in answers] == wanted["prediction"].to_list()
assert all(
    math.isclose(answer["probabilities"]["malignant"], p, abs_tol=1e-6)
    for answer, p in zip(answers, wanted["p_malignant"])
)
"""
    run(trained / ".venv/pipeline/bin/python", "-c", program, cwd=trained)


def test_fresh_clone_has_the_table(trained: Path, tmp_path: Path) -> None:
    """Where Git is set to convert line ends, too."""
    converting = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf", "-c", "core.safecrlf=true")
    run("git", "clone", "--quiet", *converting, trained, tmp_path / "clone", cwd=tmp_path)
    run(trained / ".venv/pipeline/bin/dvc", "pull", "data/raw.csv.dvc", cwd=tmp_path / "clone")
    assert (tmp_path / "clone/data/raw.csv").read_bytes() == (trained / "data/raw.csv").read_bytes()
    assert run("git", "status", "--porcelain", cwd=tmp_path / "clone") == ""
