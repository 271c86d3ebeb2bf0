"""The figure by which a canary's predictions are judged, as k8s/components/canary/prometheusrule.yaml has Prometheus
compute it, in Python: for its test, and for benchmarks/canary.py, which simulates how often it is above 1.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

#: Limits without noise: of the labels' shares, and of the numbers' means in standard deviations.
SHARES, MEANS = 0.2, 0.5


@dataclass
class Counts:
    """What the pods of one role have counted in five minutes: predictions by label, the sum of the squares of each
    request's rows, and of numbers their sum and that of their squares.
    """

    labels: dict[str, float]
    rows_squared: float
    total: float = 0.0
    squares: float = 0.0

    @property
    def predictions(self) -> float:
        """All predictions."""
        return sum(self.labels.values())

    @property
    def inverse_size(self) -> float:
        """One divided by how many independent predictions these are worth at least."""
        return self.rows_squared / self.predictions**2

    @property
    def mean(self) -> float:
        """The mean of numbers."""
        return self.total / self.predictions


@dataclass
class Traffic:
    """Requests: `shares` of the labels; each request has one of `sizes` rows, all of which have the same answer."""

    shares: list[float]
    sizes: list[int] = field(default_factory=lambda: [1])

    def draw(self, requests: int, dice: random.Random) -> Counts:
        """Return the counts of so many requests."""
        counts, rows_squared = Counter({str(label): 0 for label in range(len(self.shares))}), 0
        labels = dice.choices([*counts], self.shares, k=requests)
        for (label, rows), times in Counter(zip(labels, dice.choices(self.sizes, k=requests), strict=True)).items():
            counts[label] += rows * times
            rows_squared += rows * rows * times
        return Counts(dict(counts), rows_squared)


def of_labels(canary: Counts, stable: Counts) -> float:
    """Return the total variation distance of the labels' shares divided by its limit."""
    names = canary.labels | stable.labels
    shares = [[its.labels.get(name, 0.0) / its.predictions for name in names] for its in (canary, stable)]
    distance: float = 0.5 * sum(abs(one - other) for one, other in zip(*shares, strict=True))
    noise = math.sqrt(canary.inverse_size + stable.inverse_size)
    return distance / max(SHARES, (1.3 + 0.37 * math.sqrt(len(names) - 1)) * noise)


def of_numbers(canary: Counts, stable: Counts) -> float:
    """Return the difference of the means in standard deviations, divided by its limit."""
    variances = [its.squares / its.predictions - its.mean**2 for its in (canary, stable)]
    noise = math.sqrt(canary.inverse_size + stable.inverse_size)
    return abs(canary.mean - stable.mean) / math.sqrt(sum(variances) / 2) / max(MEANS, 4.0 * noise)
