"""What a change costs: the steps of a pull request and of a merge that trains nothing, in seconds and in CPU seconds.

    .venv/dev/bin/python benchmarks/pull_request.py [FOLDER]

A project is generated in FOLDER (a temporary one by default) and run as its workflow CI does: the first release, a pull
request with a changed parameter, and its merge. Before each job, results and DVC's cache are removed, as on a runner.
Environments are there, and their modules compiled by the first release. Lint and tests are a job beside the pipeline.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("MAKEFLAGS", "PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")
} | {f"GIT_{role}_{key}": "benchmark" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}

#: What a runner does not have: results, DVC's cache, MLflow's records.
RESULTS = (
    "data/raw.csv",
    "data/prepared",
    "model",
    "evaluation",
    "reports",
    "package",
    "build",
    ".dvc/cache",
    ".checkpoints",
)
RECORDS = ("mlflow.db", "mlruns")

#: The commands of main's run, and those of a pull request's, by job.
RELEASE = ("verify", "gate", "plan", "deploy")
PULL_REQUEST = ("pipeline", "share", "gate", "report")
BESIDE = ("lint", "test")


def main() -> None:
    """Print a table: each step's seconds and CPU seconds, and each job's."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        command = [str(Path(sys.executable).with_name("cookiecutter")), "--no-input", "--default-config"]
        run(ROOT, *command, "--output-dir", str(folder), str(ROOT))
        project = next(path.parent for path in folder.glob("*/dvc.yaml"))
        run(project, "make", "setup")
        run(project, "git", "init", "--quiet", "--bare", "../origin.git")
        run(project, "git", "remote", "add", "origin", "../origin.git")
        run(project, "git", "push", "--quiet", "origin", "main")
        print(f"{'':34} {'seconds':>8} {'CPU':>8}")
        job(project, "first release, trains on main", RELEASE)
        propose(project)
        job(project, "pull request", PULL_REQUEST)
        job(project, "beside it: first lint, tests", BESIDE, forget=False)
        job(project, "beside it: again", BESIDE, forget=False)
        share_and_merge(project)
        job(project, "merge, trains nothing", RELEASE)


def job(project: Path, name: str, targets: tuple[str, ...], *, forget: bool = True) -> None:
    """Run the targets as a job does, and print what each has cost, and all."""
    if forget:
        remove(project, *RESULTS, *RECORDS)
    costs = []
    for target in targets:
        costs.append(run(project, "make", target))
        print(f"  make {target:27} {costs[-1][0]:8.1f} {costs[-1][1]:8.1f}", flush=True)
    seconds, cpu = map(sum, zip(*costs, strict=True))
    print(f"{name:34} {seconds:8.1f} {cpu:8.1f}", flush=True)


def propose(project: Path) -> None:
    """Change a parameter on a branch."""
    run(project, "git", "switch", "--quiet", "--create", "change")
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    if text.count("dropout: 0.1") != 1:
        raise SystemExit("params.yaml has no single 'dropout: 0.1' to change")
    params.write_text(text.replace("dropout: 0.1", "dropout: 0.3"), encoding="utf-8")
    run(project, "git", "commit", "--quiet", "--all", "--message", "Try more dropout")


def share_and_merge(project: Path) -> None:
    """Share the model, as the branch's run does, and merge; dvc.lock is not committed."""
    run(project, "make", "push")
    remove(project, "dvc.lock")
    run(project, "git", "switch", "--quiet", "main")
    run(project, "git", "merge", "--quiet", "--no-ff", "--message", "Merge", "change")
    run(project, "git", "push", "--quiet", "origin", "main")


def remove(project: Path, *names: str) -> None:
    """Remove files and folders of the project."""
    for name in names:
        path = project / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def run(project: Path, *command: str) -> tuple[float, float]:
    """Run a command; return its seconds and CPU seconds. Exits with its output where it fails."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
