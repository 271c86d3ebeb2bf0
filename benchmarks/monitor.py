"""How often the monitor raises a false alarm, and what it finds: windows without drift, and one each with a drift.

    .venv/dev/bin/python benchmarks/monitor.py [FOLDER]

A project is generated in FOLDER (a temporary one by default). Each line is one reference, drawn anew, and 200 windows
that are held against it: an unlucky reference would raise an alarm in many of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]

#: Rows of the training split, of the test split and of a window.
SIZES = [(350, 150, 100), (350, 150, 500), (3000, 1000, 2000)]
SEEDS = range(5)
WINDOWS = 200


def main() -> None:
    """Print a table, one line a reference, as they come, and end with the worst."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        project = Path(cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=str(folder)))
        subprocess.run(["make", "setup"], cwd=project, check=True, stdout=subprocess.DEVNULL)
        print("| train | test | window | seed | alarms of 200 | drifts named | seconds |", f"|{'---|' * 7}", sep="\n")
        worst = 0
        for train, test, rows in SIZES:
            for seed in SEEDS:
                worst = max(worst, judged(project, train, test, rows, seed))
        print(f"\nat most {worst} of {WINDOWS} windows without drift raised an alarm: {worst / WINDOWS:.1%}")


def judged(project: Path, train: int, test: int, rows: int, seed: int) -> int:
    """Print one reference's line and return its false alarms."""
    begin = time.perf_counter()
    sizes = {"windows": WINDOWS, "rows": rows, "train-rows": train, "test-rows": test, "seed": seed}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    command = [project / ".venv/validate/bin/python", "tests/monitor_simulation.py", *options]
    done = subprocess.run(
        command, cwd=project, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    result = json.loads(done.stdout)
    found = sum(result["named"].values())
    seconds = time.perf_counter() - begin
    missed = ", ".join(name for name, named in result["named"].items() if not named)
    found_of = f"{found} of {len(result['named'])}" + (f", not {missed}" if missed else "")
    print(f"| {train} | {test} | {rows} | {seed} | {result['alarms']} | {found_of} | {seconds:.0f} |", flush=True)
    return int(result["alarms"])


if __name__ == "__main__":
    main()
