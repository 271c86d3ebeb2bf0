"""How often a canary that answers as the stable pods do fails its analysis by its predictions, and what it finds.

    .venv/dev/bin/python benchmarks/canary.py [--releases 20000]

Each line is that many releases of a service whose canary has a fifth of the requests. All rows of a
request have the same answer.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from canary_drift import Counts, Traffic, of_labels, of_numbers

#: Requests of the canary in five minutes; the stable pods have four times as many.
REQUESTS = (10, 30, 100, 300)


def shares(labels: int, first: float | None = None) -> list[float]:
    """Return equal shares of so many labels, or `first` for the first and the rest in equal parts."""
    rest = (1 - (first or 1 / labels)) / (labels - 1)
    return [first or 1 / labels] + [rest] * (labels - 1)


def labels_alarms(canary: Traffic, stable: Traffic, requests: int, releases: int, dice: random.Random) -> float:
    """Return the fraction of the releases that fail."""
    figures = (of_labels(canary.draw(requests, dice), stable.draw(4 * requests, dice)) for _ in range(releases))
    return sum(figure > 1 for figure in figures) / releases


def numbers(requests: int, shift: float, heavy: bool, dice: random.Random) -> Counts:
    """Return the counts of numbers, normal or of a lognormal distribution, moved by `shift` standard deviations."""
    spread = math.sqrt((math.e - 1) * math.e) if heavy else 1.0
    draw = dice.lognormvariate if heavy else dice.gauss
    values = [draw(0, 1) + shift * spread for _ in range(requests)]
    return Counts({"number": requests}, requests, sum(values), sum(value * value for value in values))


def numbers_alarms(shift: float, heavy: bool, requests: int, releases: int, dice: random.Random) -> float:
    """Return the fraction of the releases that fail."""
    pairs = ((numbers(requests, shift, heavy, dice), numbers(4 * requests, 0, heavy, dice)) for _ in range(releases))
    return sum(of_numbers(*pair) > 1 for pair in pairs) / releases


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--releases", type=int, default=20_000)
    count = parser.parse_args().releases
    dice = random.Random(7)
    print(f"| answers | {' | '.join(f'{requests:,} requests' for requests in REQUESTS)} |\n{'|---' * 5}|")
    cases = {
        f"{labels} labels{text}, {'one row' if sizes == [1] else '1 row or 50'} a request": (
            Traffic(shares(labels, first), sizes),
        )
        * 2
        for labels in (2, 3, 10)
        for text, first in (("", None), (", the first 95 %", 0.95))
        for rows, sizes in (("one row", [1]), ("1 row or 50", [1, 1, 1, 50]))
    }
    cases |= {
        f"2 labels, {before:.0%} become {after:.0%}": (Traffic(shares(2, after)), Traffic(shares(2, before)))
        for before, after in ((0.5, 0.8), (0.5, 1.0), (0.1, 0.5))
    }
    for name, (canary, stable) in cases.items():
        found = [labels_alarms(canary, stable, requests, count, dice) for requests in REQUESTS]
        print(f"| {name} | {' | '.join(f'{100 * rate:.3g} %' for rate in found)} |", flush=True)
    for heavy in (False, True):
        for shift in (0, 0.5, 1):
            moved = f"moved by {shift} standard deviations" if shift else "not moved"
            name = f"numbers, {'lognormal' if heavy else 'normal'}, {moved}"
            found = [numbers_alarms(shift, heavy, requests, count, dice) for requests in REQUESTS]
            print(f"| {name} | {' | '.join(f'{100 * rate:.3g} %' for rate in found)} |", flush=True)


if __name__ == "__main__":
    main()
