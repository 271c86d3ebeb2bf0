"""What the report is about: results of the stages that are fresh, and the release in production."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gitops.core import actions, artifacts
from gitops.core.params import Params
from gitops.integrations import git, kustomize
from gitops.releases import release
from gitops.rendering import manifests

#: Lines that the diff of manifests shows.
DIFF_LINES = 200

#: Last lines of a failed stage that are shown.
LOG_LINES = 30


@dataclass(frozen=True)
class Failure:
    """Where the pipeline stopped, a stage or a data file or DVC itself, and the last lines that were printed."""

    stage: str
    lines: list[str]


@dataclass
class Facts:
    """What the report is about. None, or empty: not there, or not of this commit's pipeline."""

    settings: Params
    stale: list[str]
    production: release.Production | None
    schema: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    run: dict[str, str] | None = None
    deployment: str = ""
    commit: str = ""
    retraining: dict[str, Any] | None = None
    failure: Failure | None = None


def gather(settings: Params, stale: list[str]) -> Facts:
    """Read what the fresh stages left. A failed validation is told although its stage counts as stale."""
    facts = Facts(settings, stale, release.production(), commit=actions.head() or git.run("rev-parse", "HEAD"))
    facts.failure = failure(stale)
    facts.retraining = _read(artifacts.RETRAIN)
    fresh = {name for name in ("prepare", "train", "evaluate") if name not in stale}
    if "prepare" in fresh:
        facts.schema = _read(artifacts.SCHEMA)
        for name, path in (("data", artifacts.DATA_VERDICT), ("model", artifacts.MODEL_VERDICT)):
            blocked = name == "model" and "evaluate" not in fresh
            # A stage that fails stays stale, and its verdict is news; one that passed and is stale was of other data.
            if not blocked and (verdict := _read(path)) and not (verdict["passed"] and path.stem in stale):
                facts.verdicts[name] = verdict
    if "train" in fresh:
        facts.run = _read(artifacts.RUN)
        with artifacts.LEARNING_CURVE.open(encoding="utf-8") as file:
            facts.curve = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        facts.deployment = _deployment(settings, facts.production)
    if "evaluate" in fresh:
        facts.metrics = _read(artifacts.METRICS)
        gate = _read(artifacts.GATE)
        compared = facts.production.commit if facts.production else None
        if (
            gate
            and facts.metrics
            and (gate["model_sha256"], gate["release"]) == (facts.metrics["model_sha256"], compared)
        ):
            facts.gate = gate
    return facts


def failure(stale: list[str]) -> Failure | None:
    """Return where the last `make pipeline` stopped, from its log; None where it did not, or that is mended since."""
    if not artifacts.PIPELINE_LOG.exists():
        return None
    text = artifacts.PIPELINE_LOG.read_bytes().decode(errors="replace")  # as text, "\r" would become a line break
    if not stale or not re.search(r"^ERROR: ", text, re.MULTILINE):
        return None
    named = re.search(r"^ERROR: failed to reproduce '([^']+)'", text, re.MULTILINE)
    if named and named[1] not in stale and not named[1].endswith(".dvc"):
        return None
    last = re.split(r"^Running stage .*\n", text, flags=re.MULTILINE)[-1]
    # A progress bar writes its line again and again after a carriage return; colours are for terminals.
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rpartition("\r")[2]).rstrip() for line in last.split("\n")]
    return Failure(named[1] if named else "make pipeline", [line for line in lines if line][-LOG_LINES:])


def _read(path: Path) -> Any:
    return artifacts.read_json(path, "make pipeline") if path.exists() else None


def _deployment(settings: Params, production: release.Production | None) -> str:
    """Return what a deployment of this model would change in the manifests of the environment that a merge releases to,
    as the lines of a diff; for the first release, the names of its objects. Empty: nothing.
    """
    sha256, environment = artifacts.digest(artifacts.MODEL), kustomize.first()
    present = production if environment == kustomize.PRODUCTION else release.present(environment)
    image = kustomize.default_image(sha256[:12])
    rendered = kustomize.render(image, settings.package.model_name, sha256, environment)
    old = release.manifests(present.commit) if present else {}
    lines = [f"! {warning}" for warning in kustomize.not_permitted(rendered)] + manifests.changes(old, rendered)
    return "\n".join(lines[:DIFF_LINES]) + (
        f"\n... {len(lines) - DIFF_LINES} more lines" if len(lines) > DIFF_LINES else ""
    )
