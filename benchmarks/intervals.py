"""How often the intervals of metrics hold the true value: benchmarks/intervals.py measures what the report prints.

    .venv/bin/python benchmarks/intervals.py [--seconds 480] [--processes 16] [--results FILE] [--write | --value]

Needs numpy, pydantic, scipy and tqdm, and no project: metrics and intervals are the template's own. Test rows are
drawn from populations whose true values a large sample gives: of 30 to 50,000 rows; binary and of three classes, the
rarest with 1 or 30 %; regression with normal and log-normal errors; each row a group by itself, or groups of about 20
rows (at least 30 groups) within which half of the variance of features and errors is shared. Counts are added to those
in FILE, so a second run continues the first. --write puts the table into the package and the documents; --value
measures the expected value alone, by the amounts below, which are not yours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
SOURCE = PROJECT / "src"
TABLE = SOURCE / "gitops/statistics/measured.py"
DOCUMENT = PROJECT / "docs/statistics.md"

sys.path.insert(0, str(SOURCE))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # the processes are the parallelism

import numpy as np  # noqa: E402
from gitops.core.artifacts import ProjectError  # noqa: E402
from gitops.core.value import Value  # noqa: E402
from gitops.statistics import coverage, intervals  # noqa: E402
from scipy.special import expit, ndtr  # noqa: E402
from tqdm import tqdm  # noqa: E402

spec = importlib.util.spec_from_file_location("metrics_of_project", SOURCE / "{{cookiecutter.package_name}}/metrics.py")
assert spec is not None and spec.loader is not None  # noqa: S101
metrics = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = metrics
spec.loader.exec_module(metrics)

Array = np.ndarray[Any, Any]

#: The last is jackknife.LARGE, from which intervals are analytic.
ROWS = (30, 100, 300, 1000, 10_000, 50_000)

#: Resamples of an interval: as `evaluate.bootstrap` is by default, and fewer where each takes a millisecond.
RESAMPLES, RESAMPLES_OF_MANY, MANY = 2000, 500, 10_000

#: Rows of the sample that gives the true values.
LARGE = 2_000_000

#: Repetitions that a process does at a time.
CHUNK = 5

#: Within a group, the fraction of the variance that its rows share.
SHARED = 0.5


class Cell(NamedTuple):
    """A kind of test rows: `kind` is the fraction of the rarest class in percent, or the errors' distribution."""

    task: str
    kind: str
    rows: int
    groups: int


class Rows(NamedTuple):
    """Test rows with a model's outputs, as metrics.py takes them."""

    actual: Array
    outputs: Array
    predicted: Array


def cells() -> list[Cell]:
    """Return all kinds of test rows."""
    kinds = {"binary": ("30", "1"), "multiclass": ("30", "1"), "regression": ("normal", "log-normal")}
    return [
        Cell(task, kind, rows, groups)
        for task in kinds
        for kind in kinds[task]
        for rows in ROWS
        for groups in dict.fromkeys((rows, max(30, rows // 20)))
        if not (kind == "1" and rows < 100)  # there would be none
    ]


def normal(rng: np.random.Generator, groups: Array) -> Array:
    """Return a standard normal number for each row, of which rows of a group share a part."""
    own = rng.normal(size=len(groups))
    if groups[-1] == len(groups) - 1:
        return own
    return math.sqrt(SHARED) * rng.normal(size=groups[-1] + 1)[groups] + math.sqrt(1 - SHARED) * own


def binary(rng: np.random.Generator, groups: Array, kind: str) -> Rows:
    """Return rows of a calibrated model with a ROC AUC of 0.92 (30 % positive rows) or 0.97 (1 %)."""
    intercept, threshold = {"30": (-1.8, 0.38), "1": (-8.25, 0.22)}[kind]
    positive = expit(intercept + 3 * normal(rng, groups))
    actual = (ndtr(normal(rng, groups)) < positive).astype(int)
    return Rows(actual, np.stack([1 - positive, positive], axis=1), (positive >= threshold).astype(int))


def multiclass(rng: np.random.Generator, groups: Array, kind: str) -> Rows:
    """Return rows of a calibrated model of three classes, of which the last is the rarest."""
    prior = {"30": (0.35, 0.35, 0.3), "1": (0.709, 0.29, 0.001)}[kind]
    features = np.stack([normal(rng, groups) for _ in prior], axis=1)
    outputs = np.exp(np.log(prior) + 2 * features)
    outputs /= outputs.sum(axis=1, keepdims=True)
    actual = (ndtr(normal(rng, groups))[:, None] > outputs.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return Rows(actual, outputs, outputs.argmax(axis=1))


def regression(rng: np.random.Generator, groups: Array, kind: str) -> Rows:
    """Return rows of a model with an R² of 0.8, whose errors have mean 0 and variance 1."""
    outputs, error = 2 * normal(rng, groups), normal(rng, groups)
    if kind == "log-normal":
        error = (np.exp(error) - math.exp(0.5)) / math.sqrt(math.e * (math.e - 1))
    return Rows(outputs + error, outputs, outputs)


DRAW: dict[str, Callable[[np.random.Generator, Array, str], Rows]] = {
    "binary": binary,
    "multiclass": multiclass,
    "regression": regression,
}

#: What answers are worth, with --value: by the actual class and the answer, where the rarest class is the last; and of
#: an error of 1.
AMOUNTS: dict[str, Any] = {
    "binary": {"answers": [[0, -400], [-20_000, -400]]},
    "multiclass": {"answers": [[0, -10, -100], [-10, 5, -100], [-2000, -500, 100]]},
    "regression": {"error": {"over": 1.0, "under": 3.0}},
}

#: The metrics that are measured, by task.
KNOWN: dict[str, dict[str, Any]] = {**metrics.METRICS}

#: True values of each population's metrics; processes are forked when they are known.
TRUE: dict[tuple[str, str], dict[str, float]] = {}


def true_values() -> None:
    """Fill TRUE from one large sample of each population. Groups do not change these values."""
    for task, kind in dict.fromkeys((cell.task, cell.kind) for cell in cells()):
        rows = DRAW[task](np.random.default_rng(0), np.arange(LARGE), kind)
        TRUE[task, kind] = {name: metric.score(*rows) for name, metric in KNOWN[task].items()}


def expected_value(task: str) -> dict[str, Any]:
    """Return the metric of that name, by the task's AMOUNTS, of one decision a month."""
    given, classes = AMOUNTS[task].get("answers"), [*"abc"[: len(AMOUNTS[task].get("answers", []))]]
    today = {"answer": classes[0] if classes else 0.0}
    shared = {"unit": "EUR", "decisions": 1, "running_cost": 0, "error": None, "answers": None, "today": today}
    named = given and {name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, given, strict=True)}
    value = Value.model_validate(shared | AMOUNTS[task] | {"answers": named})
    return {"expected_value": metrics.of(task, classes, value)["expected_value"]}


def draw(cell: Cell, repetition: int) -> tuple[Rows, Array]:
    """Return test rows that hold all classes, as a stratified split's do, and their groups."""
    rng = np.random.default_rng([repetition, cell.rows, cell.groups])
    groups = np.sort(np.arange(cell.rows) % cell.groups)
    classes = {"binary": 2, "multiclass": 3, "regression": 0}[cell.task]
    while True:
        rows = DRAW[cell.task](rng, groups, cell.kind)
        if not classes or len(np.unique(rows.actual)) == classes:
            return rows, groups


def repeat(cell: Cell, start: int) -> dict[str, int]:
    """Return how many of CHUNK intervals held the true value, by metric."""
    held = dict.fromkeys(KNOWN[cell.task], 0)
    for repetition in range(start, start + CHUNK):
        rows, groups = draw(cell, repetition)
        wanted = KNOWN[cell.task], rows, groups
        try:
            found = intervals.of_metrics(*wanted, RESAMPLES_OF_MANY if cell.rows >= MANY else RESAMPLES, repetition)
        except ProjectError:  # a bound far out
            found = intervals.of_metrics(*wanted, RESAMPLES, repetition)
        for name, interval in found.items():
            held[name] += interval.low <= TRUE[cell.task, cell.kind][name] <= interval.high
    return held


def work(done: dict[Cell, int]) -> Iterator[tuple[Cell, int]]:
    """Yield the cell and first repetition of chunks without end: of the cell that has the fewest."""
    while True:
        cell = min(done, key=lambda cell: done[cell])
        yield cell, done[cell]
        done[cell] += CHUNK


def measure(results: dict[Cell, dict[str, int]], seconds: float, processes: int) -> None:
    """Add repetitions to the `results` until the time is over; each process then ends what it has begun."""
    end, chunks = time.monotonic() + seconds, work({cell: counts["repetitions"] for cell, counts in results.items()})
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool, tqdm(unit="repetition", mininterval=5) as bar:
        waiting: dict[Future[dict[str, int]], Cell] = {}
        while True:
            while len(waiting) < 2 * processes and time.monotonic() < end:
                cell, start = next(chunks)
                waiting[pool.submit(repeat, cell, start)] = cell
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                counts = results[waiting.pop(future)]
                counts["repetitions"] += CHUNK
                for name, held in future.result().items():
                    counts[name] += held
                bar.update(CHUNK)


def lines(results: dict[Cell, dict[str, int]]) -> list[str]:
    """Return a line of measured.py for each cell that has repetitions."""
    found = []
    for cell, counts in results.items():
        names = [*KNOWN[cell.task]]
        errors = cell.kind if cell.task == "regression" else "-"
        rarest = "-" if cell.task == "regression" else round(cell.rows * int(cell.kind) / 100)
        if repetitions := counts["repetitions"]:
            measured = " ".join(f"{name}={counts[name] / repetitions:.3f}" for name in names)
            found.append(f"{cell.task} {errors} {cell.rows} {cell.groups} {rarest} {repetitions} {measured}")
    return found


def document(measured: list[coverage.Cell]) -> str:
    """Return the tables of docs/statistics.md; what is not 93 to 97 % is bold."""
    repetitions = [cell.repetitions for cell in measured]
    error = 100 * math.sqrt(0.95 * 0.05 / min(repetitions))
    parts = [f"{min(repetitions)} to {max(repetitions)} repetitions a line: a standard error of {error:.1f} points."]
    for task, known in KNOWN.items():
        third = (
            "errors" if task == "regression" else "positive rows" if task == "binary" else "rows of the rarest class"
        )
        parts.append(f"| {task}: rows | groups | {third} | {' | '.join(known)} |\n|{'---|' * (3 + len(known))}")
        for cell in measured:
            if cell.conditions.task == task:
                values = [cell.coverage[name] for name in known]
                shown = [f"{value:.1%}" if coverage.good(value) else f"**{value:.1%}**" for value in values]
                kind = cell.conditions.errors or f"{cell.conditions.rarest:,}"
                line = [f"{cell.conditions.rows:,}", f"{cell.conditions.groups:,}", kind, *shown]
                parts[-1] += f"\n| {' | '.join(line)} |"
    return "\n\n".join(parts)


def write(results: dict[Cell, dict[str, int]]) -> None:
    """Put the results into the package and the documents, between the lines that mark their places."""
    measured = "".join(f"{line}\n" for line in lines(results))
    head, _, _ = TABLE.read_text(encoding="utf-8").partition('MEASURED = """')
    TABLE.write_text(f'{head}MEASURED = """\n{measured}"""\n', encoding="utf-8")
    before, mark, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- coverage -->\n")
    _, end, after = rest.partition("<!-- end of coverage -->\n")
    table = document(coverage.parse(measured))
    DOCUMENT.write_text(f"{before}{mark}\n{table}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure, add to the results, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=480, help="after which no repetition is begun; 0: none is")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path(os.environ.get("OUT", ".")) / "coverage.json")
    parser.add_argument("--write", action="store_true", help="put the results into the package and the documents")
    parser.add_argument("--value", action="store_true", help="measure the expected value alone")
    arguments = parser.parse_args()
    if arguments.value:
        KNOWN.update({task: expected_value(task) for task in AMOUNTS})
        arguments.write, arguments.results = False, arguments.results.with_name(f"value-{arguments.results.name}")
    results = {cell: dict.fromkeys(["repetitions", *KNOWN[cell.task]], 0) for cell in cells()}
    if arguments.results.exists():
        stored = json.loads(arguments.results.read_text(encoding="utf-8"))
        results |= {Cell(*cell): counts for cell, counts in stored}
    if arguments.seconds:
        true_values()
        measure(results, arguments.seconds, arguments.processes)
        arguments.results.write_text(json.dumps([[cell, counts] for cell, counts in results.items()]) + "\n")
    if measured := coverage.parse("\n".join(lines(results))):
        print(document(measured))
    if arguments.write:
        write(results)


if __name__ == "__main__":
    main()
