"""Decide whether the candidate may replace the release in production (`make gate`).

It is refused unless all of these hold:

- Thresholds: each metric in `gate.thresholds` is within its limit.
- Primary metric: `gate.primary_metric` is not worse than production's by more than `gate.tolerance`. The point estimate
  of the difference decides. Its 95 % interval (champion_challenger.py) is reported with it, and a difference whose
  interval contains 0 is called "within noise".
- Guardrail metrics: none in `gate.guardrail_metrics` is worse than production's by more than its own limit.
- Validation: both validations ran on this data and model and passed, and no stage is out of date.

Without a release for the same task there is nothing to compare with: thresholds and validation alone decide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gitops import owner
from gitops.core import artifacts, params
from gitops.core.artifacts import GATE, METRICS, MODEL, SCHEMA, TEST, ProjectError, digest, read_json, run, write_json
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.gate.champion_challenger import Comparison, Difference, compare
from gitops.integrations import dvc
from gitops.releases import release

VALIDATIONS = {"data validation": artifacts.DATA_VERDICT, "model validation": artifacts.MODEL_VERDICT}

#: Sums of floats that are equal on paper differ by less than this.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Rule:
    """One condition. `value` is None where it is unknown, which fails the rule."""

    rule: str
    value: float | None
    limit: float
    passed: bool
    failure: str  # what the reason says if the rule fails


def main() -> int:
    """Write reports/gate.json, print the reason, and return 0 if the candidate is accepted, else 1."""
    result = evaluate(params.load())
    echo(f"{result['reason']}\nAll rules: {GATE}")
    return 0 if result["accepted"] else 1


def evaluate(settings: Params) -> dict[str, Any]:
    """Compare the workspace's model with the release on origin, write reports/gate.json and return its contents.

    Raises ProjectError, and leaves no gate.json, where there is no evaluated model or origin cannot be reached.
    """
    GATE.unlink(missing_ok=True)
    evaluated = candidate_metrics()
    present = release.production()
    comparison = compare(settings, read_json(SCHEMA, "make pipeline"), evaluated, present)
    rules = [*thresholds(settings, evaluated), *against_production(settings, comparison), *validations(), freshness()]
    name = settings.gate.primary_metric
    difference = comparison.differences.get(name)
    result = {
        "accepted": all(rule.passed for rule in rules),
        "reason": reason(name, evaluated["metrics"][name]["value"], comparison, rules),
        "mode": comparison.mode,
        "metric": name,
        "tolerance": settings.gate.tolerance,
        "candidate": evaluated["metrics"][name]["value"],
        "production": comparison.production.get(name),
        "difference": asdict(difference) if difference else None,
        "differences": {other: asdict(value) for other, value in comparison.differences.items()},
        "rules": [{key: value for key, value in asdict(rule).items() if key != "failure"} for rule in rules],
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


def thresholds(settings: Params, evaluated: dict[str, Any]) -> list[Rule]:
    """Return a rule for each metric with an absolute limit."""
    rules = []
    for name, limit in settings.gate.thresholds.items():
        higher = owner.sign(settings.data.task, name) > 0
        value = evaluated["metrics"].get(name, {}).get("value")
        passed = value is not None and (value >= limit if higher else value <= limit)
        words = f"{name} {'at least' if higher else 'at most'} {limit:g}"
        rules.append(Rule(words, value, limit, passed, f"{name} is {_show(value)}, and {words} is needed"))
    return rules


def against_production(settings: Params, comparison: Comparison) -> list[Rule]:
    """Return the rules on the primary and the guardrail metrics; none where there is nothing to compare with."""
    if comparison.mode == "absolute":
        return []
    gate = settings.gate
    rules = []
    for name, limit in ((gate.primary_metric, gate.tolerance), *gate.guardrail_metrics.items()):
        difference = comparison.differences.get(name)
        value = difference.value if difference else None
        passed = value is not None and value >= -limit - ROUNDING
        words = f"{name} at most {limit:g} worse than in production"
        failure = f"{name} is {_describe(difference)}, and at most {limit:g} worse is allowed"
        rules.append(Rule(words, value, -limit, passed, failure))
    return rules


def validations() -> list[Rule]:
    """Return a rule for each validation: its result exists and says that it passed."""
    rules = []
    for name, path in VALIDATIONS.items():
        try:
            result = read_json(path, "make pipeline")
            failed = [_limited(item) for item in result["conditions"] if item["status"] == "failed"]
            failed += [f"{item['check']} (not run)" for item in result["not_run"] if not item["allowed"]]
            passed = result["passed"] is True and not failed
            value, failure = len(failed), f"{name} failed: {', '.join(failed) or 'its result says so'}"
        except (ProjectError, KeyError, TypeError) as error:
            value, passed, failure = None, False, f"{name} has no result: {error}"
        rules.append(Rule(f"{name} without a failed check", value, 0, passed, failure))
    return rules


def _limited(condition: dict[str, Any]) -> str:
    """Return the name of a failed check with the setting that holds its limit."""
    return f"{condition['check']} ({condition['setting']})" if condition.get("setting") else str(condition["check"])


def freshness() -> Rule:
    """Return the rule that the results come from this code, data and model: no stage is stale."""
    stale = dvc.stale()
    failure = f"{', '.join(stale)} out of date, run `make pipeline`"
    return Rule("no stage out of date", len(stale), 0, not stale, failure)


def reason(name: str, candidate: float, comparison: Comparison, rules: list[Rule]) -> str:
    """Return the decision and why, in one sentence."""
    if failures := [rule.failure for rule in rules if not rule.passed]:
        return f"Refused: {'; '.join(failures)}."
    if comparison.mode == "absolute":
        return f"Accepted on absolute thresholds alone: {name} is {_show(candidate)}; {comparison.basis}."
    difference = _describe(comparison.differences[name])
    production = f"production's {_show(comparison.production[name])} {comparison.basis}"
    return f"Accepted: {name} is {_show(candidate)}, {difference}, compared with {production}."


def _describe(difference: Difference | None) -> str:
    if difference is None:
        return "not in the release record"
    side = "better" if difference.value > 0 else "worse"
    size = f"{_show(abs(difference.value))} {side}" if difference.value else "equal"
    noise = ", within noise" if difference.low <= 0 <= difference.high else ""
    return f"{size} (95 % interval {difference.low:+.4f} to {difference.high:+.4f}{noise})"


def _show(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    run(main)
