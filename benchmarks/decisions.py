"""How often the gate and `make tune` decide wrongly, where the truth is known.

    demo/breast-cancer/.venv/pipeline/bin/python benchmarks/decisions.py [--processes 2] [--scale 1] [--seed 0]

The gate: candidates whose true ROC AUC is that of the releases, or smaller by the tolerance or twice that, on test rows
drawn anew for each decision. A row's score is common to all models but for a tenth of its variance, as for models that
were trained on much the same rows. `make tune`: sets that predict equally well but not the same, since each leaves out
another one of features that count alike, go through search, finalists and judgement. Both use the functions of the
project. Prints the tables of docs/statistics.md, with about `--scale` times three minutes of one core.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from gitops.gate import decision
from gitops.statistics import differences
from gitops.tuning import judge, tune
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[Any]

#: The gate's world: AUC of the releases, gate.tolerance, fraction of positive rows, variance that all models share.
AUC, TOLERANCE, POSITIVE, SHARED = 0.95, 0.005, 0.3, 0.9

#: Test rows, and how many sets of them are drawn; releases that a candidate is compared with; true differences.
ROWS = {100: 1000, 300: 1000, 1000: 600, 3000: 400, 10_000: 150}
RELEASES = (1, 10)
WORSE = {"0": 0.0, "−tolerance": TOLERANCE, "−2 · tolerance": 2 * TOLERANCE}

#: Resamples behind a bound; evaluate.bootstrap's 2000 would make it less variable, and no better or worse on average.
RESAMPLES = 400

#: Tuning's world: training rows, each with sets of rows drawn; features; sets of the search; how much less the loss of
#: the others is than the present set's.
TRAINING = {200: 600, 1000: 400}
FEATURES, SETS = 20, 20
GAINS = (0.0, 0.05, 0.2)

#: Blocks of work that each process takes, so that they end together.
BLOCKS = 20


def main() -> None:
    """Simulate both, and print their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many simulations as in the documents")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        counted = {rows: count(pool, partial(gate, rows), draws, options) for rows, draws in ROWS.items()}
        print("\n".join(gate_table(counted)), "\n", flush=True)
        cells = {(rows, gain): draws for rows, draws in TRAINING.items() for gain in GAINS}
        tuned = {cell: count(pool, partial(tuning, *cell), draws, options) for cell, draws in cells.items()}
    print("\n".join(tuning_table(tuned)))
    print(f"\n{time.perf_counter() - begin:.0f} s")


def count(pool: ProcessPoolExecutor, simulate: Callable[..., Counter[Any]], draws: int, options: Any) -> Counter[Any]:
    """Return the counts of about `draws` simulations, which the processes share; "draws" counts these."""
    each = max(1, round(draws * options.scale / BLOCKS))
    seeds = np.random.SeedSequence([options.seed, draws]).spawn(BLOCKS)
    total: Counter[Any] = Counter()
    for counted in pool.map(simulate, [each] * BLOCKS, seeds):
        total += counted
    return total


# The gate.


def gate(rows: int, draws: int, seed: np.random.SeedSequence) -> Counter[Any]:
    """Return how often the candidate is refused, by decision, true difference and number of releases."""
    rng, refused = np.random.default_rng(seed), Counter(draws=draws)
    for _ in range(draws):
        measured, resampled = aucs(rng, rows)
        for place, name in enumerate(WORSE):
            values, drawn = measured[place] - measured[len(WORSE) :], resampled[:, [place]] - resampled[:, len(WORSE) :]
            for releases in RELEASES:
                for kind in ("proved_worse", "not_worse"):
                    refused[kind, name, releases] += is_refused(kind, values[:releases], drawn[:, :releases], rows)
    return refused


def is_refused(kind: str, values: Array, drawn: Array, rows: int) -> bool:
    """Tell what the gate makes of the differences from some releases, [releases] and [resamples, releases]."""
    lower = differences.lower_bounds(values, drawn, rows)
    upper = differences.upper_bounds(values, drawn, rows)
    return not all(decision.passes(kind, TOLERANCE, *numbers) for numbers in zip(values, lower, upper, strict=True))


def aucs(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Return the AUC of each model, candidates first, then releases, on rows that are drawn: measured, [models], and in
    resamples of these, [resamples, models].
    """
    actual = np.zeros(rows, dtype=np.float32)
    actual[: max(2, round(POSITIVE * rows))] = 1
    # Two normal distributions with this distance have that AUC.
    distance = np.sqrt(2) * ndtri(AUC - np.array([*WORSE.values(), *[0.0] * max(RELEASES)]))
    own = rng.normal(size=(rows, len(distance)))
    scores = np.sqrt(SHARED) * rng.normal(size=(rows, 1)) + np.sqrt(1 - SHARED) * own + actual[:, None] * distance
    weights = np.ones((rows, RESAMPLES + 1), dtype=np.float32)  # how often a row is in a resample; the first is all
    for place in range(1, RESAMPLES + 1):
        weights[:, place] = np.bincount(rng.integers(0, rows, rows), minlength=rows)
    found = np.stack([weighted_auc(actual, scores[:, model], weights) for model in range(len(distance))], axis=1)
    return found[0], found[1:]


def weighted_auc(actual: Array, scores: Array, weights: Array) -> Array:
    """Return the AUC for each column of `weights` [rows, resamples]; the scores have no ties."""
    order = np.argsort(-scores)
    ordered, positive = weights[order], actual[order][:, None]
    above = np.cumsum(ordered * positive, axis=0)  # positive rows that score higher than each row
    pairs = np.einsum("rb,rb->b", ordered * (1 - positive), above)
    total = above[-1]
    return np.asarray(pairs / (total * (weights.sum(axis=0) - total)), dtype=float)


def gate_table(counted: dict[int, Counter[Any]]) -> Iterator[str]:
    """Yield the lines of the table of refusals, in percent."""
    columns = [(kind, releases) for kind in ("proved_worse", "not_worse") for releases in RELEASES]
    yield "| test rows | true difference | " + " | ".join(f"`{kind}`, {n}" for kind, n in columns) + " |"
    yield "|---" * (2 + len(columns)) + "|"
    for rows, refused in counted.items():
        for name in WORSE:
            cells = (percent(refused[kind, name, releases], refused["draws"]) for kind, releases in columns)
            yield f"| {rows:,} | {name} | " + " | ".join(cells) + " |"


# Tuning.


def tuning(rows: int, gain: float, draws: int, seed: np.random.SeedSequence) -> Counter[Any]:
    """Return how often another set is called better than the present one.

    "judged" is what `make tune` says; "seeds", for comparison, a rule that looks at other seeds alone: better by more
    than their standard deviation, on the validation rows that chose the set.
    """
    rng, better = np.random.default_rng(seed), Counter(draws=draws)
    for _ in range(draws):
        world = World(rng, rows, gain)
        search = [world.validated(one, rng) for one in range(SETS)]
        finalists = [0, *(int(one) for one in np.argsort(search) if one != 0)][: tune.FINALISTS + 1]
        scores = np.array([[world.validated(one, rng) for _ in range(tune.SEEDS)] for one in finalists])
        means, deviations = scores.mean(axis=1), scores.std(axis=1, ddof=1)
        best = 1 + int(np.argmin(means[1:]))
        better["seeds"] += means[0] - means[best] > max(deviations[0], deviations[best])
        if means[best] < means[0]:
            parts = [world.held_out(0, finalists[best], rng) for _ in range(judge.REPEATS)]
            better["judged"] += judge.verdict(parts, judge.HELD_OUT)["better"]
    return better


class World:
    """A table whose target is the sum of all features and noise; a set of settings is the feature that it leaves out.

    Set 0, the present one, leaves out a feature that counts more, such that its squared error is larger by `gain`.
    """

    def __init__(self, rng: np.random.Generator, rows: int, gain: float) -> None:
        effects, noise = np.full(FEATURES, 0.5), 1.0
        effects[0] = np.sqrt((1 + gain) * (noise**2 + effects[1] ** 2) - noise**2)
        self.features = rng.normal(size=(rows + rows // 4, FEATURES))
        self.target = self.features @ effects + noise * rng.normal(size=len(self.features))
        self.rows = rows

    def validated(self, left_out: int, rng: np.random.Generator) -> float:
        """Return the error on the validation rows of a training with a random seed."""
        validation = np.arange(self.rows, len(self.features))
        return self.error(left_out, rng.integers(0, self.rows, self.rows), validation)

    def held_out(self, present: int, other: int, rng: np.random.Generator) -> float:
        """Return how much less the other set's error is on a part of the training rows that is held out."""
        order = rng.permutation(self.rows)
        held, rest = np.split(order, [round(judge.HELD_OUT * self.rows)])
        drawn = rest[rng.integers(0, len(rest), len(rest))]
        return self.error(present, drawn, held) - self.error(other, drawn, held)

    def error(self, left_out: int, trained: Array, scored: Array) -> float:
        """Return the mean squared error of least squares. A training's seed draws its rows, with replacement."""
        features = np.delete(self.features, left_out, axis=1)
        learned = features[trained]
        weights = np.linalg.solve(learned.T @ learned + 1e-3 * np.eye(FEATURES - 1), learned.T @ self.target[trained])
        return float(((features[scored] @ weights - self.target[scored]) ** 2).mean())


def tuning_table(counted: dict[tuple[int, float], Counter[Any]]) -> Iterator[str]:
    """Yield the lines of the table of sets that are called better, in percent."""
    yield "| training rows | loss less by | `make tune` says better | seeds alone would |"
    yield "|---|---|---|---|"
    for (rows, gain), better in counted.items():
        cells = [percent(better[rule], better["draws"]) for rule in ("judged", "seeds")]
        yield f"| {rows:,} | {f'{gain:.0%}' if gain else '0, all are equal'} | " + " | ".join(cells) + " |"


def percent(count: int, draws: int) -> str:
    """Return a fraction in percent."""
    return f"{100 * count / draws:.1f} %"


if __name__ == "__main__":
    main()
