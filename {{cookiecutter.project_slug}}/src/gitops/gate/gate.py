"""Decide whether the candidate may replace the release in production (`make gate`).

It is refused unless all of these hold:

- Thresholds: each metric in `gate.thresholds` is within its limit, and each in `gate.slices` in every slice.
- Primary metric: `gate.primary_metric` is not worse than that of the releases so far, on the same rows, as
  `gate.decision` and `gate.tolerance` say (decision.py).
- Guardrail metrics: likewise each in `gate.guardrail_metrics`, with its own limit.
- Validation: both validations ran on this data and model and passed, and no stage is out of date.
- Technical debt: the ML Test Score reaches `gate.debt`, where that is set.

Without a release for the same task there is nothing to compare with: thresholds and validation alone decide.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gitops.core import params
from gitops.core.artifacts import GATE, METRICS, MODEL, SCHEMA, TEST, ProjectError, digest, read_json, run, write_json
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.gate import decision, rules
from gitops.gate.champion_challenger import Against, Comparison, compare
from gitops.gate.rules import Rule, show
from gitops.releases import release
from gitops.releases.record import Deployed


def main() -> int:
    """Write reports/gate.json, print the reason, and return 0 if the candidate is accepted, else 1."""
    result = evaluate(params.load())
    echo(f"{result['reason']}\nAll rules: {GATE}")
    return 0 if result["accepted"] else 1


def evaluate(settings: Params) -> dict[str, Any]:
    """Compare the workspace's model with the releases on origin, write reports/gate.json and return its contents.

    Raises ProjectError, and leaves no gate.json, where there is no evaluated model or origin cannot be reached.
    """
    GATE.unlink(missing_ok=True)
    evaluated = candidate_metrics()
    present = release.production()
    comparison = compare(settings, read_json(SCHEMA, "make pipeline"), evaluated, present)
    found = [
        *rules.thresholds(settings, evaluated),
        *rules.slices(settings, evaluated),
        *decision.against_releases(settings, comparison),
        *rules.validations(),
        rules.freshness(),
    ]
    name = settings.gate.primary_metric
    candidate, production = evaluated["metrics"][name]["value"], comparison.production
    differences = {other: asdict(value) for other, value in (production.differences if production else {}).items()}
    releases = [_release(name, one) for one in comparison.releases]
    found += rules.debt(settings, {"model_sha256": evaluated["model_sha256"], "releases": releases})
    result = {
        "accepted": all(rule.passed for rule in found),
        "reason": reason(settings, candidate, comparison, found),
        "mode": comparison.mode,
        "decision": settings.gate.decision,
        "metric": name,
        "tolerance": settings.gate.tolerance,
        "candidate": candidate,
        "production": production.scores.get(name) if production else None,
        "difference": differences.get(name),
        "differences": differences,
        "releases": releases,
        "left_out": comparison.left_out,
        "best": _recorded_best(best(settings, comparison), name, present),
        "rules": [{key: value for key, value in asdict(rule).items() if key != "failure"} for rule in found],
        "model_sha256": evaluated["model_sha256"],
        "release": present.commit if present else None,
    }
    write_json(GATE, result)
    return result


def candidate_metrics() -> dict[str, Any]:
    """Return metrics.json. Raises ProjectError where it is missing, or is of another model or test split."""
    evaluated: dict[str, Any] = read_json(METRICS, "make pipeline")
    for path, key, algorithm in ((MODEL, "model_sha256", "sha256"), (TEST, "test_md5", "md5")):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
        if evaluated.get(key) != digest(path, algorithm):
            raise ProjectError(f"{METRICS} was not made from this {path} ({key} differs): run `make pipeline` again")
    return evaluated


def best(settings: Params, comparison: Comparison) -> Against | None:
    """Return the release with the best primary metric on today's rows; None where none was run or measured on them."""
    name = settings.gate.primary_metric
    on_rows = comparison.releases[1:] if comparison.mode == "recorded" else comparison.releases
    scored = [one for one in on_rows if name in one.differences]
    return max(scored, key=lambda one: settings.sign(name) * one.scores[name], default=None)


def reason(settings: Params, candidate: float, comparison: Comparison, found: list[Rule]) -> str:
    """Return the decision and why, in one sentence."""
    name, production = settings.gate.primary_metric, comparison.production
    label = settings.label(name)
    if failures := [rule.failure for rule in found if not rule.passed]:
        return f"Refused: {'; '.join(failures)}."
    if production is None:
        return f"Accepted on absolute thresholds alone: {label} is {show(candidate)}; {comparison.basis}."
    described = decision.describe(production.differences[name])
    compared = f"compared with production's {show(production.scores[name])} {comparison.basis}"
    return f"Accepted: {label} is {show(candidate)}, {described}, {compared}{_others(settings, comparison)}."


def _others(settings: Params, comparison: Comparison) -> str:
    """Return what is to be said of the releases before production's."""
    name, parts = settings.gate.primary_metric, []
    if len(comparison.releases) > 1 and (top := best(settings, comparison)):
        verdict = {"not_worse": "is not worse", "proved_worse": "is not proved worse"}[settings.gate.decision]
        which = "production" if top.deployed else f"{top.title} with {show(top.scores[name])}"
        parts.append(f"; it {verdict} than any of {len(comparison.releases)} releases, the best of which is {which}")
    if count := len(comparison.left_out):
        parts.append(f"; {count} earlier release{'s' if count > 1 else ''} could not be compared")
    return "".join(parts)


def _release(name: str, one: Against) -> dict[str, Any]:
    """Return what gate.json says of a release that was compared."""
    difference = one.differences.get(name)
    return {
        "release": one.commit,
        "model_version": one.model_version,
        "title": one.title,
        "deployed": one.deployed,
        "basis": one.basis,
        "value": one.scores.get(name),
        "difference": asdict(difference) if difference else None,
    }


def _recorded_best(top: Against | None, name: str, present: Deployed | None) -> dict[str, Any] | None:
    """Return what the release record will name as the best release so far.

    Where no release could be run or measured on today's rows it stays the one that production's record names.
    """
    if top:
        return {"commit": top.commit, "model_version": top.model_version, "value": top.scores[name]}
    earlier = present.record.gate.best if present else None
    return earlier.model_dump() | {"value": None} if earlier else None


if __name__ == "__main__":
    run(main)
