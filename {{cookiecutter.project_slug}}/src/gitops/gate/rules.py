"""The gate's rules that look at the candidate alone: limits, slices, validations, and whether it is up to date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, read_json
from gitops.core.figures import number
from gitops.core.params import Params
from gitops.debt import score
from gitops.integrations import dvc

VALIDATIONS = {"data validation": artifacts.DATA_VERDICT, "model validation": artifacts.MODEL_VERDICT}


@dataclass(frozen=True)
class Rule:
    """One condition. `value` is None where it is unknown, which fails the rule."""

    rule: str
    value: float | None
    limit: float
    passed: bool
    failure: str  # what the reason says if the rule fails
    bound: float | None = None  # of a value that is judged by it: 95 %
    release: str | None = None  # what the candidate is compared with: the release that decides


def thresholds(settings: Params, evaluated: dict[str, Any]) -> list[Rule]:
    """Return a rule for each metric with an absolute limit."""
    rules = []
    for name, limit in settings.gate.thresholds.items():
        value = evaluated["metrics"].get(name, {}).get("value")
        sign = settings.sign(name)
        passed = value is not None and sign * value >= sign * limit
        words = _words(settings, name, limit)
        failure = f"{settings.label(name)} is {show(value)}, and {words} is needed (gate.thresholds)"
        rules.append(Rule(words, value, limit, passed, failure))
    return rules


def slices(settings: Params, evaluated: dict[str, Any]) -> list[Rule]:
    """Return a rule for each metric of `gate.slices` and column of `data.slices`: the limit holds in every slice.

    With `proved_worse` a slice fails if its 95 % interval lies wholly beyond the limit, with `not_worse` if it does not
    lie wholly within. A slice without the metric (too few rows, or of one class) is not judged; a column without any
    that is judged fails.
    """
    found = evaluated.get("slices", {})
    return [
        _slice_rule(settings, name, limit, column, found.get(column, {}))
        for name, limit in settings.gate.slices.items()
        for column in settings.data.slices
    ]


def _slice_rule(settings: Params, name: str, limit: float, column: str, values: dict[str, Any]) -> Rule:
    """Return the rule for one metric and column, with the value, interval and bound of the slice that decides."""
    sign, strict = settings.sign(name), settings.gate.decision == "not_worse"
    words = f"{_words(settings, name, limit)} for each value of {column}"
    judged = []
    for value, cell in values.items():
        score = (cell["metrics"] or {}).get(name)
        if score and score["value"] is not None:
            worst, best = sorted((sign * score["low"], sign * score["high"]))
            judged.append((worst if strict else best, value, score))
    if not judged:
        count = f"none of the {len(values)} values of {column} has enough test rows"
        return Rule(words, None, limit, False, f"{name} was not judged by {column}: {count} (evaluate.min_slice_rows)")
    bound, value, score = min(judged, key=lambda item: item[0])
    words += f" ({len(judged)} of {len(values)} judged)" if len(judged) < len(values) else ""
    interval = f"95 % interval {show(score['low'])} to {show(score['high'])}"
    found = f"{settings.label(name)} is {show(score['value'])} where {column} is {value} ({interval})"
    failure = f"{found}, and {words} is needed (gate.slices)"
    return Rule(words, score["value"], limit, bound >= sign * limit, failure, sign * bound)


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


def debt(settings: Params, result: dict[str, Any]) -> list[Rule]:
    """Return the rule that the ML Test Score reaches `gate.debt`, where that is set. `result`: the gate's, so far."""
    limit = settings.gate.debt
    if limit is None:
        return []
    found = score.of(settings, result)
    unknown = sum(not test["known"] for test in found["tests"])
    failure = f"the ML Test Score is {show(found['score'])}, and {number(limit)} is needed (gate.debt"
    failure += f"; {unknown} of the tests are not known)" if unknown else ")"
    return [Rule(f"ML Test Score at least {number(limit)}", found["score"], limit, found["score"] >= limit, failure)]


def show(value: float | None) -> str:
    """Return a value as a text."""
    return "unknown" if value is None else number(value)


def _words(settings: Params, name: str, limit: float) -> str:
    side = "at least" if settings.sign(name) > 0 else "at most"
    return f"{settings.label(name)} {side} {number(limit, 6)}"
