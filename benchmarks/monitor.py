"""How often the monitor raises a false alarm, and which fraction of drifts it finds, for windows of several sizes.

    .venv/dev/bin/python benchmarks/monitor.py [FOLDER]

A project is generated in FOLDER (a temporary one by default). Five references are drawn for each size; each is compared
with 200 windows without drift, and 20 with each of the drifts of tests/gitops/monitor_simulation.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]
SIMULATION = ROOT / "tests/gitops/monitor_simulation.py"

WINDOWS, DRIFTED, REFERENCES = 200, 20, 5

#: Simulations that run at the same time.
WORKERS = 2


class Size(NamedTuple):
    """Rows of the training split, of the test split and of a window."""

    task: str
    train: int
    test: int
    window: int


#: The smallest window that is evaluated by default (`monitor.min_rows`), a usual one, and a large one.
SIZES = [
    Size("binary", 350, 150, 100),
    Size("binary", 350, 150, 500),
    Size("binary", 3000, 1000, 2000),
    Size("multiclass", 350, 150, 500),
    Size("regression", 350, 150, 500),
]


def main() -> None:
    """Print a table of false alarms, one line per size as it finishes, then a table of the drifts that were found."""
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(WORKERS) as pool:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        project = Path(cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=str(folder)))
        subprocess.run(["make", "setup"], cwd=project, check=True, stdout=subprocess.DEVNULL)
        print(
            f"| task | train | test | window | alarms of {WINDOWS}, by reference | fraction |\n|{'---|' * 6}",
            flush=True,
        )
        results = []
        for size, references in zip(SIZES, pool.map(lambda size: simulated(project, size), SIZES), strict=True):
            print(false_alarms(size, references), flush=True)
            results.append(references)
    print(f"\n{power(results)}")


def simulated(project: Path, size: Size) -> list[Any]:
    """Return the simulation's result for each reference."""
    numbers = {"windows": WINDOWS, "drifted": DRIFTED, "references": REFERENCES}
    numbers |= {"rows": size.window, "train-rows": size.train, "test-rows": size.test}
    options = [f"--task={size.task}", *(f"--{name}={value}" for name, value in numbers.items())]
    command = [project / ".venv/validate/bin/python", SIMULATION, *options]
    done = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True)
    references: list[Any] = json.loads(done.stdout)
    return references


def false_alarms(size: Size, references: list[Any]) -> str:
    """Return a line of a table: how many windows without drift raised an alarm."""
    alarms = [reference["alarms"] for reference in references]
    fraction = sum(alarms) / (WINDOWS * len(alarms))
    return f"| {' | '.join(map(str, size))} | {', '.join(map(str, alarms))} | {fraction:.1%} |"


def power(results: list[list[Any]]) -> str:
    """Return a table of the drifts: the fraction of windows in which the right check and column failed, by size."""
    titles = [f"{size.task}, {size.test} test rows, window of {size.window}" for size in SIZES]
    lines = [f"| found in {DRIFTED * REFERENCES} windows | {' | '.join(titles)} |", f"|{'---|' * (len(SIZES) + 1)}"]
    first = results[0][0]
    for drift, (check, column) in (first["injected"] | first["small"]).items():
        cells = []
        for references in results:
            found = sum(reference["found"][drift].get(f"{check}: {column}", 0) for reference in references)
            cells.append(f"{found / (DRIFTED * REFERENCES):.0%}")
        lines.append(f"| {drift} ({check}) | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
