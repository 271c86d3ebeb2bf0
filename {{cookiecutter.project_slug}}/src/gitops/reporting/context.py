"""The report's input: results of the stages that are up to date, and the release in production."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gitops.core import actions, artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.debt import score
from gitops.debt.project import Project
from gitops.design import documents
from gitops.design.documents import State
from gitops.integrations import argo_cd, dvc, git, kustomize
from gitops.releases import holds, release
from gitops.releases.holds import Examined
from gitops.releases.record import Deployed
from gitops.rendering import manifests
from gitops.reporting import production_value
from gitops.reporting.production_value import ProductionValue

#: Maximum number of lines of the manifests' diff.
DIFF_LINES = 200

#: How many of a failed stage's last lines are shown.
LOG_LINES = 30


@dataclass(frozen=True)
class Failure:
    """Where the pipeline stopped (a stage, a data file or DVC itself), and its last lines of output."""

    stage: str
    lines: list[str]


@dataclass
class Context:
    """What the report is about. None or empty: missing, or not a result of this commit's pipeline."""

    settings: Params
    stale: list[str]
    production: Deployed | None
    schema: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    replay: dict[str, Any] | None = None
    validations: dict[str, dict[str, Any]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    run: dict[str, str] | None = None
    deployment: str = ""
    warnings: list[str] = field(default_factory=list)  # of what Argo CD would not apply
    rollbacks: dict[str, Examined] = field(default_factory=dict)  # by environment
    commit: str = ""
    retraining: dict[str, Any] | None = None
    failure: Failure | None = None
    value_curve: list[dict[str, float]] = field(default_factory=list)  # of a binary model, over the threshold
    production_value: ProductionValue | None = None
    documents: State | None = None
    debt: dict[str, Any] | None = None
    explanations: dict[str, Any] | None = None
    production_explanations: dict[str, Any] | None = None


def gather(settings: Params, stale: list[str]) -> Context:
    """Read the results of the stages that are up to date, and of validations that failed, whose stages stay stale."""
    context = Context(settings, stale, release.production(), commit=actions.head() or git.run("rev-parse", "HEAD"))
    context.failure = failure(stale)
    context.retraining = _read(artifacts.RETRAIN)
    context.rollbacks = _rollbacks(stale, context.production)
    fresh = {name for name in ("prepare", "train", "evaluate") if name not in stale}
    if "prepare" in fresh:
        context.schema = _read(artifacts.SCHEMA)
        for name, path in (("data", artifacts.DATA_VERDICT), ("model", artifacts.MODEL_VERDICT)):
            blocked = name == "model" and "evaluate" not in fresh
            # A stage that failed stays stale: its result counts. One that passed and is stale was about other data.
            if not blocked and (result := _read(path)) and not (result["passed"] and path.stem in stale):
                context.validations[name] = result
    context.documents = documents.state(settings, context.schema)
    context.debt = score.evaluate(Project(settings, stale))
    if "train" in fresh:
        context.run, context.decision = _read(artifacts.RUN), _read(artifacts.DECISION)
        context.curve = _numbers(artifacts.LEARNING_CURVE)
        context.deployment, context.warnings = _deployment(settings, context.production)
    if "evaluate" in fresh:
        context.metrics, context.explanations = _read(artifacts.METRICS), _read(artifacts.EXPLANATIONS)
        context.production_explanations = _released(context.production)
        gate = _read(artifacts.GATE)
        compared = context.production.commit if context.production else None
        if (
            gate
            and context.metrics
            and (gate["model_sha256"], gate["release"]) == (context.metrics["model_sha256"], compared)
        ):
            context.gate = gate
        if context.schema and context.metrics and "value" in context.metrics:
            about = settings, context.schema, context.metrics, context.gate, context.production
            context.production_value = production_value.find(*about)
            if (path := artifacts.PLOTS / "value.csv").exists():
                context.value_curve = _numbers(path)
        context.replay = replayed(settings, compared)
    return context


def failure(stale: list[str]) -> Failure | None:
    """Return where the last `make pipeline` stopped, from its log; None where it did not, or is fixed since."""
    if not artifacts.PIPELINE_LOG.exists():
        return None
    text = artifacts.PIPELINE_LOG.read_bytes().decode(errors="replace")  # as text, "\r" would become a line break
    if not stale or not re.search(r"^ERROR: ", text, re.MULTILINE):
        return None
    named = re.search(r"^ERROR: failed to reproduce '([^']+)'", text, re.MULTILINE)
    if named and named[1] not in stale and not named[1].endswith(".dvc"):
        return None
    last = _output(named[1] if named else None, text)
    # A progress bar rewrites its line after a carriage return; colours are for terminals.
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rpartition("\r")[2]).rstrip() for line in last.split("\n")]
    return Failure(named[1] if named else "make pipeline", [line for line in lines if line][-LOG_LINES:])


def _output(stage: str | None, log: str) -> str:
    """Return what a stage has printed, up to its error: what ran beside it stands after that.

    Where it did not run, or is None, that is what the last stage has printed.
    """
    outputs = re.split(r"^Running stage '([^']+)':\n", log, flags=re.MULTILINE)
    by_stage = dict(zip(outputs[1::2], outputs[2::2], strict=True))
    if stage not in by_stage:
        return outputs[-1]
    printed, error, rest = by_stage[stage].partition(f"ERROR: failed to reproduce '{stage}'")
    return printed + error + rest.partition("\n")[0]


def _read(path: Path) -> Any:
    return artifacts.read_json(path, "make pipeline") if path.exists() else None


def _numbers(path: Path) -> list[dict[str, float]]:
    """Return the rows of a CSV file of numbers."""
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _released(production: Deployed | None) -> Any:
    """Return the explanations.json that a release was made with; None where it has none, or DVC cannot fetch it."""
    if not production or not production.record.explanations:
        return None
    try:
        return _read(dvc.fetch(production.record.explanations.md5))
    except ProjectError:
        return None


def replayed(settings: Params, compared: str | None) -> dict[str, Any] | None:
    """Return the replay's result where it is one of this model, and of the release that is in production."""
    found, archive = _read(artifacts.REPLAY), artifacts.PACKAGE / f"{settings.package.model_name}.mar"
    if not found or found["package_md5"] != (artifacts.digest(archive, "md5") if archive.exists() else None):
        return None
    known: dict[str, Any] = found
    return known if known["release"] in (None, compared) else None


def _rollbacks(stale: list[str], production: Deployed | None) -> dict[str, Examined]:
    """Return what each environment has rolled back that holds the commit here up, or that it undoes.

    In a pull request's run that commit is GitHub's test merge, thus what main would be.
    """
    digests = {"model": artifacts.digest(artifacts.MODEL)} if "train" not in stale else {}
    commit, found = git.run("rev-parse", "HEAD"), {}
    for environment in kustomize.environments():
        present = production if environment == kustomize.PRODUCTION else release.present(environment)
        if present:
            found[environment] = holds.examine(environment, present.commit, commit, digests)
    return found


def _deployment(settings: Params, production: Deployed | None) -> tuple[str, list[str]]:
    """Return what a deployment of this model would change in the manifests of the environment that a merge releases to,
    as the lines of a diff; for the first release, the names of its objects. Empty: nothing. Then warnings about it.
    """
    sha256, environment = artifacts.digest(artifacts.MODEL), kustomize.first()
    present = production if environment == kustomize.PRODUCTION else release.present(environment)
    image = kustomize.default_image(sha256[:12])
    rendered = kustomize.render(image, settings.package.model_name, sha256, environment)
    old = release.manifests(present.commit) if present else {}
    lines = manifests.changes(old, rendered)
    more = f"\n... {len(lines) - DIFF_LINES} more lines" if len(lines) > DIFF_LINES else ""
    warnings = argo_cd.not_permitted(rendered) + argo_cd.needed(rendered, old)
    return "\n".join(lines[:DIFF_LINES]) + more, warnings
