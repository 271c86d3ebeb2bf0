"""Whether the candidate is worse than the releases that it was compared with, by `gate.decision`.

- `proved_worse` refuses a candidate that is worse than some release beyond the noise of the test rows, and by more than
  the tolerance. The bound holds for all releases together, so that more of them do not mean more refusals by chance.
- `not_worse` accepts a candidate that is shown to be at most the tolerance worse than each release. Every one of these
  statements is needed, so that each is tested at its own level (an intersection-union test; Berger, 1982).

How often each of them is wrong is simulated in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from gitops.core.figures import number, signed
from gitops.core.params import Params
from gitops.gate.champion_challenger import Against, Comparison, Difference
from gitops.gate.rules import Rule, show

#: Sums of floats that are equal on paper differ by less than this.
ROUNDING = 1e-12

NOISE = "within the noise of these test rows"


def passes(decision: str, tolerance: float, value: float, lower: float, upper: float) -> bool:
    """Tell whether a difference, with its one-sided 95 % bounds, is allowed; above 0 the candidate is better."""
    if decision == "not_worse":
        return lower >= -tolerance - ROUNDING
    return value >= -tolerance - ROUNDING or upper >= 0


def against_releases(settings: Params, comparison: Comparison) -> list[Rule]:
    """Return the rules on the primary and the guardrail metrics; none where there is nothing to compare with."""
    if comparison.production is None:
        return []
    gate = settings.gate
    limits: list[tuple[str, float, str]] = [(gate.primary_metric, gate.tolerance, "gate.tolerance")]
    limits += [(name, limit, "gate.guardrail_metrics") for name, limit in gate.guardrail_metrics.items()]
    return [_rule(settings.label(limited[0]), *limited, gate.decision, comparison.releases) for limited in limits]


def _rule(label: str, name: str, limit: float, setting: str, decision: str, releases: Sequence[Against]) -> Rule:
    """Return the rule for one metric, with the numbers of the release that decides it; `setting` holds the limit.

    `label` is the metric's name for people.
    """
    most = number(limit, 6)
    than = "than production" if len(releases) == 1 else f"than each of {len(releases)} releases"
    if decision == "not_worse":
        words = f"{label} proved at most {most} worse {than}"
    else:
        words = f"{label} at most {most} worse {than}, or not proved worse"
    if name not in releases[0].differences:
        failure = f"{label} of {releases[0].title} is not known, and at most {most} worse is allowed ({setting})"
        return Rule(words, None, -limit, False, failure, release=releases[0].title)
    one, difference = decisive(name, limit, decision, releases)
    passed = passes(decision, limit, difference.value, difference.lower, difference.upper)
    bound = difference.lower if decision == "not_worse" else difference.upper
    failure = f"{_failure(label, most, decision, one, difference)} ({setting})"
    return Rule(words, difference.value, -limit, passed, failure, bound, one.title)


def decisive(name: str, limit: float, decision: str, releases: Sequence[Against]) -> tuple[Against, Difference]:
    """Return the release by which a metric is decided, and the difference: one that refuses before all others, then the
    one of which least is shown.
    """
    compared = [(one, one.differences[name]) for one in releases if name in one.differences]

    def key(pair: tuple[Against, Difference]) -> tuple[bool, float]:
        its = pair[1]
        return passes(decision, limit, its.value, its.lower, its.upper), (
            its.lower if decision == "not_worse" else its.value
        )

    return min(compared, key=key)


def _failure(label: str, most: str, decision: str, one: Against, difference: Difference) -> str:
    if decision == "not_worse":
        return (
            f"{label} may be {show(-difference.lower)} worse than that of {one.title} (95 % bound; measured: "
            f"{signed(difference.value)}) {one.basis}, and at most {most} worse must be proved"
        )
    return (
        f"{label} is {show(-difference.value)} worse than that of {one.title}, proved by the 95 % bound "
        f"{signed(difference.upper)}, {one.basis}, and at most {most} worse is allowed"
    )


def describe(difference: Difference) -> str:
    """Return a difference in words, with its interval."""
    side = "better" if difference.value > 0 else "worse"
    size = f"{show(abs(difference.value))} {side}" if difference.value else "equal"
    noise = f", {NOISE}" if difference.low <= 0 <= difference.high else ""
    return f"{size} (95 % interval {signed(difference.low)} to {signed(difference.high)}{noise})"
