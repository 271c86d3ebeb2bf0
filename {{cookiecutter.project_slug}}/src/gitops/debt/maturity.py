"""The levels of MLOps maturity, computed: which practices of levels 0, 1 and 2 this repository automates.

Source: Google Cloud Architecture Center, "MLOps: Continuous delivery and automation pipelines in machine learning"
(https://cloud.google.com/architecture/mlops-continuous-delivery-and-automation-pipelines-in-machine-learning). It names
the practices of each level; which file shows one is decided here. Only files are read: whether a workflow has run, or a
release was made, is the business of the ML Test Score. `make debt` prints the level; run as a program, this module
lists each practice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gitops.core import artifacts
from gitops.core.console import echo
from gitops.debt.files import APPLICATION, PIPELINE, PRODUCTION, Repository

CI, MONITOR, RETRAIN, ROLLBACK, PROMOTE = (
    Path(f".github/workflows/{name}.yaml") for name in ("ci", "monitor", "retrain", "rollback", "promote")
)


@dataclass(frozen=True)
class Practice:
    """A practice of a level. `missing`: what would have to be there; empty where all is.

    `known` is False where another place than the repository may have it, which counts as missing.
    """

    text: str
    evidence: str
    missing: str
    known: bool = True
    optional: bool = False

    @property
    def found(self) -> bool:
        """Whether all that shows it is there."""
        return not self.missing


@dataclass(frozen=True)
class Level:
    """A level of maturity and its practices. `reached`: all that are not optional are found, here and below."""

    number: int
    name: str
    practices: list[Practice]
    reached: bool


def levels(root: Path) -> list[Level]:
    """Return levels 0, 1 and 2 of the project in `root`; what cannot be read there counts as missing."""
    repository = Repository(root)
    found: list[Level] = []
    for number, (name, practices) in enumerate(
        [
            ("manual process", _manual(repository)),
            ("ML pipeline automation", _automated_pipeline(repository)),
            ("CI/CD pipeline automation", _automated_delivery(repository)),
        ]
    ):
        complete = all(one.found or one.optional for one in practices)
        found.append(Level(number, name, practices, complete and all(level.reached for level in found)))
    return found


def reached(found: Iterable[Level]) -> int:
    """Return the highest level that is reached; 0, where every project begins, if none is."""
    return max((level.number for level in found if level.reached), default=0)


def summary(found: Iterable[Level]) -> str:
    """Return the level that is reached and what the next one lacks, on one line."""
    found = [*found]
    text = f"MLOps maturity: level {reached(found)} of {found[-1].number}"
    following = next((level for level in found if not level.reached), None)
    if following is None:
        return text
    lacks = [f"{one.text} ({one.missing})" for one in following.practices if not one.found and not one.optional]
    return f"{text}; level {following.number} lacks {', '.join(lacks)}"


def _practice(text: str, evidence: str, *missing: str, optional: bool = False, elsewhere: str = "") -> Practice:
    """Return a practice; `elsewhere`: where else it may be that cannot be seen from here."""
    left = "; ".join(one for one in missing if one)
    more = f"; {elsewhere} cannot be seen here" if left and elsewhere else ""
    return Practice(text, evidence, left + more, not more, optional)


def _manual(ask: Repository) -> list[Practice]:
    served = ("serving/Containerfile", "k8s/base/deployment.yaml")
    return [
        _practice("training as code", "src/*/train.py", ask.files("src/*/train.py")),
        _practice("a prediction service", ", ".join(served), ask.files(*served)),
    ]


def _automated_pipeline(ask: Repository) -> list[Practice]:
    stages = ("prepare", "train", "evaluate", "package")
    events = ("schedule", "workflow_run", "repository_dispatch", "workflow_dispatch")
    verdict = "reports/validate_data.json"
    return [
        _practice("an orchestrated pipeline, as code", f"{PIPELINE}: {', '.join(stages)}", ask.stages(*stages)),
        _practice(
            "the same pipeline for experiments and in production",
            f"make pipeline in {CI}, make retrain in {RETRAIN}",
            ask.runs(CI, "pipeline"),
            ask.runs(RETRAIN, "retrain"),
        ),
        _practice(
            "data validation before training",
            f"{PIPELINE}: train depends on {verdict}",
            ask.stages("validate_data"),
            ask.depends("train", verdict),
        ),
        _practice(
            "model validation before release",
            f"{PIPELINE}: validate_model; make gate in {CI}",
            ask.stages("validate_model"),
            ask.runs(CI, "gate"),
        ),
        _practice(
            "metadata of each run", "src/*/train.py, src/*/evaluate.py", ask.logs("train.py"), ask.logs("evaluate.py")
        ),
        _practice("automated triggers of retraining", f"{RETRAIN}: {', '.join(events)}", ask.starts(RETRAIN, *events)),
        _practice(
            "continuous delivery of the model",
            f"make deploy in {CI}",
            ask.runs(CI, "deploy"),
            ask.files(str(PRODUCTION)),
        ),
        _practice(
            "monitoring by the clock",
            f"{MONITOR}: schedule",
            ask.starts(MONITOR, "schedule"),
            ask.runs(MONITOR, "monitor"),
        ),
        _practice(
            "a request log to monitor",
            f"{PRODUCTION}: request-log",
            ask.component("request-log"),
            elsewhere="a log that the variable REQUEST_LOG names on GitHub",
        ),
        _practice(
            "a feature store",
            "k8s/components/feature-store, requirements/features.txt",
            ask.files("k8s/components/feature-store", "requirements/features.txt"),
            optional=True,
        ),
    ]


def _automated_delivery(ask: Repository) -> list[Practice]:
    versioned = ("data/*.dvc", ".dvc/config", "requirements/*.txt", ".github/CODEOWNERS")
    return [
        _practice("code, data and environments under version control", ", ".join(versioned), ask.files(*versioned)),
        _practice(
            "tests of each push",
            f"make lint, make test in {CI}",
            ask.starts(CI, "push"),
            ask.runs(CI, "lint", "test"),
        ),
        _practice(
            "a build, from main alone",
            f"make archive, make sign in {CI}",
            ask.uses(CI, "docker/build-push-action"),
            ask.runs(CI, "archive", "sign"),
        ),
        _practice(
            "pipeline delivery: main runs what was merged",
            f"make verify, make plan in {CI}",
            ask.runs(CI, "verify", "plan"),
        ),
        _practice("a model registry", f"make register in {CI}", ask.runs(CI, "register")),
        _practice(
            "a deployment service",
            f"{APPLICATION}: env/production",
            ask.synced("env/production"),
            elsewhere="an Application of a platform" if ask.files(str(APPLICATION)) else "",
        ),
        _practice("rollback at the push of a button", f"make rollback in {ROLLBACK}", ask.runs(ROLLBACK, "rollback")),
        _practice(
            "an environment before production",
            f"make promote in {PROMOTE}",
            ask.runs(PROMOTE, "promote"),
            optional=True,
        ),
    ]


def main() -> None:
    """Print each level with its practices, what shows each, and what is missing."""
    found = levels(Path())
    for level in found:
        have = sum(one.found for one in level.practices)
        state = "reached" if level.reached else "not reached"
        echo(f"Level {level.number}, {level.name}: {state}, {have} of {len(level.practices)} practices")
        for one in level.practices:
            answer = "yes" if one.found else "no" if one.known else "not known"
            optional = " (optional)" if one.optional else ""
            echo(f"  {answer:9}  {one.text}{optional}: {one.evidence if one.found else f'missing: {one.missing}'}")
    echo(f"\n{summary(found)}")


if __name__ == "__main__":
    artifacts.run(main)
