"""The last word of `make tune`: is the set that the search has found better than the present one?

The search and the comparison of its finalists have chosen by the validation split, and the best of many is partly luck.
So both sets are trained again, from seeds that chose nothing, on the training split less a part that is held out, and
scored on that part, which has chosen nothing either.
"""

from __future__ import annotations

import statistics
from typing import Any

from tqdm import tqdm

from gitops.core.params import Params
from gitops.statistics import corrected_t
from gitops.tuning.study import APART, NoScore, Trainer, Values, sign, with_values

#: Parts that are held out, one after another, and their fraction of the training rows.
REPEATS, HELD_OUT = 10, 0.2

#: The probability with which a set that is no better is called better.
LEVEL = 0.05


def judge(settings: Params, trainer: Trainer, present: Values, best: Values, first: int) -> dict[str, Any]:
    """Train and score both sets on REPEATS parts; `first` is the number of the first seed that chose nothing.

    Returns `seeds`; the scores `present` and `best`, None for a training without one; `held_out`, the fraction of the
    training rows; and, where all have one, the mean `difference` (above 0: the best set is better), its one-sided 95 %
    lower `bound` and `p_value`, else None; `better`. A set without a score from some part is worse than any other.
    """
    seeds = [settings.train.seed + APART * number for number in range(first, first + REPEATS)]
    scores: dict[str, list[float | None]] = {"present": [], "best": []}
    fractions = []
    todo = [(seed, name, values) for seed in seeds for name, values in (("present", present), ("best", best))]
    for seed, name, values in tqdm(todo, desc="judge", unit="training", disable=None):
        try:
            score, fraction = trainer.held_out(with_values(settings, {**values, "train.seed": seed}), HELD_OUT)
            fractions.append(fraction)
        except NoScore:
            score = None
        scores[name].append(score)
    whole = all(score is not None for its in scores.values() for score in its)
    held_out = statistics.fmean(fractions) if fractions else HELD_OUT
    result = {"seeds": seeds, **scores, "held_out": held_out}
    if not whole:
        return result | {"difference": None, "bound": None, "p_value": None, "better": None not in scores["best"]}
    pairs = zip(scores["present"], scores["best"], strict=True)
    return result | verdict([sign(settings) * (new - old) for old, new in pairs], held_out)  # type: ignore[operator]


def verdict(differences: list[float], held_out: float) -> dict[str, Any]:
    """Return what the differences of the repeats show: `difference`, `bound`, `p_value`, `better`."""
    ratio = held_out / (1 - held_out)
    p_value = corrected_t.p_value(differences, ratio)
    return {
        "difference": statistics.fmean(differences),
        "bound": corrected_t.lower_bound(differences, ratio, 1 - LEVEL),
        "p_value": p_value,
        "better": p_value < LEVEL,
    }
