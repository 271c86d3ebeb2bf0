"""The levels of MLOps maturity: what a project's files show, and that what is taken away lowers the level."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from defaults import ROOT
from gitops.debt import maturity
from gitops.debt.maturity import Practice

WORKFLOWS = ".github/workflows/"
PRODUCTION = "k8s/overlays/production/kustomization.yaml"
APPLICATION = "k8s/argocd/application.yaml"

#: The practice that lacks something: its level, the file, and what is replaced in it; None: the file is not there.
TAKEN = {
    "training as code": (0, "src/breast_cancer/train.py", None),
    "a prediction service": (0, "k8s/base/deployment.yaml", None),
    "an orchestrated pipeline, as code": (1, "dvc.yaml", ("  package:\n", "  packed:\n")),
    "the same pipeline for experiments and in production": (1, f"{WORKFLOWS}ci.yaml", ("make pipeline", "make train")),
    "data validation before training": (1, "dvc.yaml", ("- reports/validate_data.json  # not", "#")),
    "model validation before release": (1, f"{WORKFLOWS}ci.yaml", ("run: make gate", "run: true || make gate")),
    "metadata of each run": (1, "src/breast_cancer/train.py", ("tracking.start(", "nothing(")),
    "automated triggers of retraining": (1, f"{WORKFLOWS}retrain.yaml", ("  schedule:\n", "  # schedule:\n")),
    "continuous delivery of the model": (1, f"{WORKFLOWS}ci.yaml", ("run: make deploy", "run: make plan")),
    "monitoring by the clock": (1, f"{WORKFLOWS}monitor.yaml", None),
    "a request log to monitor": (1, PRODUCTION, ("- ../../components/request-log", "# -")),
    "code, data and environments under version control": (2, ".github/CODEOWNERS", None),
    "tests of each push": (2, f"{WORKFLOWS}ci.yaml", ("run: make test", "run: 'true'")),
    "a build, from main alone": (2, f"{WORKFLOWS}ci.yaml", ("docker/build-push-action@", "somebody/build@")),
    "pipeline delivery: main runs what was merged": (2, f"{WORKFLOWS}ci.yaml", ("run: make verify", "run: 'true'")),
    "a model registry": (2, f"{WORKFLOWS}ci.yaml", ("run: make register", "run: 'true'")),
    "a deployment service": (2, APPLICATION, ("automated: {", "manual: {")),
    "rollback at the push of a button": (2, f"{WORKFLOWS}rollback.yaml", None),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The default project's files, its request log kept."""
    for name in (".github", ".dvc", "k8s", "serving", "requirements", "src/breast_cancer"):
        ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored, symlinks=True)
    for name in ("dvc.yaml", "data/raw.csv.dvc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    replace(tmp_path / PRODUCTION, "# - ../../components/request-log", "- ../../components/request-log")
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, which has it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def practices(project: Path) -> dict[str, tuple[int, Practice]]:
    return {one.text: (level.number, one) for level in maturity.levels(project) for one in level.practices}


def test_all_of_it_is_level_2(project: Path) -> None:
    found = maturity.levels(project)
    assert [level.number for level in found if level.reached] == [0, 1, 2]
    assert maturity.reached(found) == 2
    assert {name for name, (_, one) in practices(project).items() if not one.found} == {
        "a feature store",
        "an environment before production",
    }


def test_each_practice_but_the_optional_ones_is_taken_away_below(project: Path) -> None:
    assert {name: level for name, (level, one) in practices(project).items() if not one.optional} == {
        name: level for name, (level, *_) in TAKEN.items()
    }


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_away_lowers_the_level(name: str, project: Path) -> None:
    level, path, change = TAKEN[name]
    if change is None:
        (project / path).unlink()
    else:
        replace(project / path, *change)
    found = maturity.levels(project)
    assert maturity.reached(found) == max(level - 1, 0)
    assert [one.number for one in found if one.reached] == [*range(level)]
    assert name in {text for text, (_, one) in practices(project).items() if not one.found}
    missing = practices(project)[name][1].missing
    assert Path(path).name in missing or re.search("src/.*train.py", missing)


def test_what_may_be_elsewhere_is_not_known(project: Path) -> None:
    """A log that GitHub's variable names, and the Application of a shared platform."""
    replace(project / PRODUCTION, "- ../../components/request-log", "# -")
    (project / APPLICATION).unlink()
    unknown = {name for name, (_, one) in practices(project).items() if not one.known}
    assert unknown == {"a request log to monitor", "a deployment service"}


@pytest.mark.parametrize(
    "text", ["", "- a\n", "jobs: [1]\nstages: x\n", "on: 3\njobs: {a: 1, b: {steps: [x]}}\n", "a: [", "\0"]
)
def test_files_that_cannot_be_read_count_as_missing(text: str, project: Path) -> None:
    for path in [*project.rglob("*.yaml")]:
        path.write_text(text, encoding="utf-8")
    assert maturity.reached(maturity.levels(project)) == 0


def test_an_empty_folder_is_at_level_0(tmp_path: Path) -> None:
    found = maturity.levels(tmp_path)
    assert not any(level.reached or any(one.found for one in level.practices) for level in found)
    assert maturity.reached(found) == 0


def test_the_command_shows_evidence_and_what_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    replace(project / PRODUCTION, "- ../../components/request-log", "# -")
    maturity.main()
    printed = capsys.readouterr().out
    assert "Level 1, ML pipeline automation: not reached, 8 of 10 practices" in printed
    assert f"not known  a request log to monitor: missing: request-log among the components of {PRODUCTION}" in printed
    assert "yes        tests of each push: make lint, make test in .github/workflows/ci.yaml" in printed
    assert printed.endswith(f"\n\n{maturity.summary(maturity.levels(project))}\n")


def test_one_line_names_the_level_and_what_the_next_one_lacks(project: Path) -> None:
    """Not what a level above that lacks too."""
    assert maturity.summary(maturity.levels(project)) == "MLOps maturity: level 2 of 2"
    replace(project / PRODUCTION, "- ../../components/request-log", "# -")
    (project / WORKFLOWS / "rollback.yaml").unlink()
    assert maturity.summary(maturity.levels(project)) == (
        f"MLOps maturity: level 0 of 2; level 1 lacks a request log to monitor (request-log among the components of "
        f"{PRODUCTION}; a log that the variable REQUEST_LOG names on GitHub cannot be seen here)"
    )
    (project / "serving/Containerfile").unlink()
    line = maturity.summary(maturity.levels(project))
    assert line == "MLOps maturity: level 0 of 2; level 0 lacks a prediction service (serving/Containerfile)"
