"""What the pipeline takes of large tables: seconds and peak memory, beside the goals in README.

    .venv/dev/bin/python benchmarks/scale.py [WHAT ...] [--rows 10000000] [--folder FOLDER]

WHAT: growth, stages, processes, wide, monitor, default; without any, all of them, in about an hour.
For each a project is generated in FOLDER, a temporary one by default, which needs 30 GB. Memory is the largest resident
set of the process or of one that it started. With a GPU, `growth` trains on it too. benchmarks/handler.py measures a
server's requests.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"

#: Rows of the table that two processes share, and of the wide one; rows of a batch, where the table is not wide.
SHARED, WIDE, BATCH = 1_000_000, 20_000, 1024

#: What answers are worth, by the actual class.
AMOUNTS = {"yes": {"yes": -400, "no": -20_000}, "no": {"yes": -400, "no": 0}}

#: Days of the request log.
DAYS = 30

#: The template before any of this, and how often both are measured.
BEFORE, ROUNDS = "7c34c18", 7

STAGES = ("prepare", "validate_data", "train", "evaluate", "validate_model", "package")


@dataclass
class Run:
    """What a command took: seconds, seconds of all cores, bytes of the largest process, and what it printed."""

    seconds: float
    cores: float
    memory: int
    output: str

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.cores:.1f} s of cores, {self.memory / 1e9:.2f} GB"


class Project:
    """A generated project, with a table of the benchmark's in place of its own."""

    def __init__(self, folder: Path, tables: Path, source: Path = ROOT) -> None:
        """Generate it in `folder` from the template in `source`; tables are kept in `tables`."""
        self.path = Path(cookiecutter(str(source), no_input=True, default_config=True, output_dir=str(folder)))
        self.run("make", "setup")
        if (self.path / "data/appended.dvc").exists():
            self.run(self.path / ".venv/pipeline/bin/dvc", "pull", "--quiet", "data/appended.dvc")
        self.package = yaml.safe_load((self.path / "params.yaml").read_text())["package"]["model_name"]
        self.tables = tables

    def table(self, kind: str, rows: int) -> Path:
        """Return the table `kind` of scale_tables.py with so many rows, and let the project's settings name it."""
        path = self.tables / f"{kind}-{rows}.parquet"
        if not path.exists():
            self.run(self.python, BENCHMARKS / "scale_tables.py", kind, path, rows)
        self.set(
            {
                "data": {"path": str(path), "target": "y", "positive": "yes"},
                "value": {"answers": AMOUNTS, "today": {"answer": "yes"}},
                "train": {"batch_size": BATCH if kind == "narrow" else 128},
                "gate": {"thresholds": {"roc_auc": 0.5}},
            }
        )
        return path

    @property
    def python(self) -> Path:
        """The Python of the project's pipeline."""
        return self.path / ".venv/pipeline/bin/python"

    def set(self, sections: dict[str, dict[str, Any]]) -> None:
        """Change settings in params.yaml."""
        path = self.path / "params.yaml"
        settings = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            settings[name] |= values
        path.write_text(yaml.safe_dump(settings, sort_keys=False))

    def stage(self, module: str, **environment: str) -> Run:
        """Run a module of the project's package."""
        return self.run(self.python, "-m", f"{self.package}.{module}", **environment)

    def run(self, *command: object, **environment: str) -> Run:
        """Run a command in the project. Ends the benchmark with its output where it fails."""
        with tempfile.TemporaryFile() as output:
            begin = time.perf_counter()
            words = [str(word) for word in command]
            process = subprocess.Popen(
                words, cwd=self.path, env=ENVIRONMENT | environment, stdout=output, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if status:
            sys.exit(f"error: {' '.join(words)} ended with status {process.returncode}:\n{text[-4000:]}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)


ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHONDONTWRITEBYTECODE")
}


def show(what: str, size: str, figure: object) -> None:
    """Print one row of the table."""
    print(f"| {what} | {size} | {figure} |", flush=True)


def one_epoch(project: Project, kind: str = "epoch", *options: str, **environment: str) -> tuple[float, Run]:
    """Return the seconds of an epoch, and what its process took."""
    run = project.run(project.python, BENCHMARKS / "scale_training.py", kind, *options, **environment)
    return float(json.loads(run.output.splitlines()[-1])["seconds"]), run


def growth(project: Project, rows: int) -> None:
    """Split and train, for one epoch, tables of a hundredth, a tenth and all of --rows; compare with a plain loop."""
    for size in (rows // 100, rows // 10, rows):
        project.table("narrow", size)
        show("prepare", f"{size:,} x 31", project.stage("prepare"))
        seconds, run = one_epoch(project)
        show("one epoch", f"{size:,} x 30", f"{seconds:.1f} s; {run.memory / 1e9:.2f} GB")
    for options in ([], *([["cuda"], ["cuda", "compile"], ["cuda", "bfloat16"]] if gpu(project) else [])):
        ours, _ = one_epoch(project, "epoch", *options[:1]) if options[:1] else (seconds, None)
        theirs, plain = one_epoch(project, "bare", *options)
        figure = f"{theirs:.1f} s, {theirs / ours:.2f} of it beside the epoch's; {plain.memory / 1e9:.2f} GB"
        show(" ".join(["a plain loop in memory", *options]), f"{rows:,} x 30", figure)


def gpu(project: Project) -> bool:
    """Tell whether PyTorch finds a GPU."""
    command = [project.python, "-c", "import torch; print(torch.cuda.is_available())"]
    return project.run(*command).output.strip() == "True"


def stages(project: Project, rows: int) -> None:
    """Run the other stages on a table of --rows rows, after an epoch of training."""
    project.table("narrow", rows)
    project.set({"train": {"epochs": 1}})
    every_stage(project, f"{rows:,} x 31")


def wide(project: Project, rows: int) -> None:
    """Run each stage on 1,500 columns."""
    project.table("wide", WIDE)
    every_stage(project, f"{WIDE:,} x 1,501")


def every_stage(project: Project, size: str) -> None:
    """Run each stage by itself."""
    for stage in STAGES:
        dvc = project.path / ".venv/pipeline/bin/dvc"
        show(stage, size, project.run(dvc, "repro", "--force", "--single-item", stage))


def processes(project: Project, rows: int) -> None:
    """Train in one process of one thread, and in two: seconds of an epoch, from trainings of one and of three."""
    project.table("narrow", SHARED)
    project.stage("prepare")
    found = []
    for count in (1, 2):
        taken = []
        for epochs in (1, 3):
            project.set({"train": {"epochs": epochs, "patience": 9, "processes": count}})
            taken.append(project.stage("train", OMP_NUM_THREADS="1").seconds)
        found.append((taken[1] - taken[0]) / 2)
    figure = f"{found[0]:.1f} s and {found[1]:.1f} s, {found[0] / found[1]:.2f} times as fast"
    show("an epoch in one process and in two", f"{SHARED:,} x 30, batches of {BATCH}", figure)


def monitor(project: Project, rows: int) -> None:
    """Evaluate a log of 30 days with three times --rows requests in all, a million a day by default."""
    log, a_day = project.path.parent / "monitor", rows // 10
    log.mkdir()
    program = BENCHMARKS / "scale_monitor.py"
    wrote = project.run(project.python, program, "write", log, DAYS, a_day)
    show("writing the log, for the next line", f"{DAYS} days x {a_day:,}", wrote)
    run = project.run(project.python, program, "run", log, DAYS, a_day)
    show("`make monitor`, log in parquet", f"{DAYS} days x {a_day:,}", run)


def default(project: Project, rows: int) -> None:
    """Train on the bundled table here, and as the template was at the commit BEFORE, in turn."""
    source = project.path.parent / "before"
    source.mkdir()
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    earlier = Project(project.path.parent / "earlier", project.tables, source)
    taken: dict[str, list[float]] = {"before": [], "now": []}
    for each in (earlier, project):
        each.run("make", "pipeline")
    for _ in range(ROUNDS):
        for name, each in (("before", earlier), ("now", project)):
            taken[name].append(each.stage("train").seconds)
    figure = ", ".join(f"{statistics.median(seconds):.2f} s {name}" for name, seconds in taken.items())
    show(f"`train`, the median of {ROUNDS}", "the bundled table", figure)


MEASUREMENTS: dict[str, Callable[[Project, int], None]] = {
    "growth": growth,
    "stages": stages,
    "processes": processes,
    "wide": wide,
    "monitor": monitor,
    "default": default,
}


def main() -> None:
    """Print a table, one row a measurement, as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(MEASUREMENTS))
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if unknown := {*options.what} - {*MEASUREMENTS}:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(MEASUREMENTS)}")
    print("| what | table | measured |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for number, what in enumerate(options.what or MEASUREMENTS):
            MEASUREMENTS[what](Project(folder / f"{number}-{what}", folder / "tables"), options.rows)


if __name__ == "__main__":
    main()
