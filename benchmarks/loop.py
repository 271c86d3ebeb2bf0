"""Where the time goes: generation, set-up, each stage, an unchanged rerun, the server's start and its answers.

    .venv/dev/bin/python benchmarks/loop.py [FOLDER]

A project is generated in FOLDER (a temporary one by default) and run as a user would. Each stage runs twice: once for
its seconds, once with Python's import profile. Package caches are warm when this has run before.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = 500

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHONDONTWRITEBYTECODE")
}


def main() -> None:
    """Print a table, one line a measurement, as they come."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        command = [str(Path(sys.executable).with_name("cookiecutter")), "--no-input", "--default-config"]
        show("generate, as a process", run(ROOT, *command, "--output-dir", str(folder), str(ROOT))[0])
        project = next(path.parent for path in folder.glob("*/dvc.yaml"))
        show("make setup", run(project, "make", "setup")[0])
        show("make setup, nothing to do", run(project, "make", "setup")[0])
        stages(project)
        for target in ("lint", "test"):
            show(f"make {target}", run(project, "make", target)[0])
        show("make lint, again", run(project, "make", "lint")[0])
        serving(project)


def stages(project: Path) -> None:
    """Time each stage twice, the second time with what imports take, then the whole pipeline with nothing to do."""
    dvc = str(project / ".venv/pipeline/bin/dvc")
    run(project, dvc, "pull", "--quiet", "data/raw.csv.dvc")
    run(project, "make", "pipeline")  # compiles every module once, which no later run has to
    total = 0.0
    for stage in ("prepare", "validate_data", "train", "evaluate", "validate_model", "package"):
        seconds, _ = run(project, dvc, "repro", "--quiet", "--force", "--single-item", stage)
        _, profile = run(
            project, dvc, "repro", "--quiet", "--force", "--single-item", stage, PYTHONPROFILEIMPORTTIME="1"
        )
        imports = sum(int(own) for own in re.findall(r"import time:\s+(\d+) \|", profile)) / 1e6
        show(f"stage {stage}", seconds, f"imports, DVC's, the stage's and of MLflow beside it: {imports:.1f}")
        total += seconds
    show("all stages", total)
    show("make pipeline, nothing to do", run(project, "make", "pipeline")[0])


def serving(project: Path) -> None:
    """Time `make serve` until it is ready, then single requests from one client."""
    begin = time.perf_counter()
    command = ["make", "serve", "ARGS=--port 0"]
    server = subprocess.Popen(command, cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        url = next(found[1] for line in server.stdout or [] if (found := re.search(r"^curl \S+ (http://\S+)", line)))
        show("make serve, until it is ready", time.perf_counter() - begin)
        row = json.loads((project / "package/golden_request.json").read_text())["instances"][0]
        body = json.dumps({"instances": [row]}).encode()
        taken = []
        for _ in range(REQUESTS):
            sent = time.perf_counter()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=30).read()
            taken.append((time.perf_counter() - sent) * 1000)
        p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
        print(f"{'one row, one client':36} p50 {p50:.1f} ms, p99 {p99:.1f} ms, a connection each")
    finally:
        os.killpg(server.pid, 2)
        server.wait(60)


def run(project: Path, *command: str, **extra: str) -> tuple[float, str]:
    """Run a command; return its seconds and what it wrote to standard error. Exits with its output where it fails."""
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=project, env=ENVIRONMENT | extra, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stderr


def show(what: str, seconds: float, note: str = "") -> None:
    """Print one measurement."""
    print(f"{what:36} {seconds:7.1f} s  {note}", flush=True)


if __name__ == "__main__":
    main()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{'largest process':36} {peak:7.0f} MiB")
