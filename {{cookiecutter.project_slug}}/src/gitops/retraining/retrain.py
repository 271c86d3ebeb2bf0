"""Retrain on the newest data and propose the result (`make retrain REASON=...`): a branch, on GitHub a pull request.

Whatever lies in the person's working tree, and on whichever branch, stays as it is: the work is done in a second
working tree of the newest commit of main, in .dvc/tmp/retrain, which is made anew each time. A run that was killed
leaves nothing there that the next one would use. What both trees share keeps what it has done: DVC's cache, the
checkpoint of a training, the study of a search for settings. Each is used again for the same inputs alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitops.core import params
from gitops.core.artifacts import CHECKPOINTS, PARAMS, ProjectError, run
from gitops.integrations import git, tracking
from gitops.monitoring.request_log import DEFAULTS
from gitops.releases import release

PLACE = Path(".dvc/tmp/retrain")
REPORTS = Path("reports/retrain")
MONITOR = Path("reports/monitor.json")


def main() -> int:
    """Return the exit status of what runs in the second working tree (retraining.py)."""
    if not os.environ.get("REASON", "").strip():
        raise ProjectError('REASON is not set: say why, as in `make retrain REASON="labels of the spring"`')
    with only_one() as lock:
        here, place = Path.cwd(), tree()
        try:
            command = [sys.executable, "-m", f"{__package__}.retraining"]
            variables = environment(here, place)
            return subprocess.run(command, cwd=place, env=variables, pass_fds=[lock], check=False).returncode
        finally:
            shutil.rmtree(REPORTS, ignore_errors=True)
            if (place / "reports").exists():
                shutil.copytree(place / "reports", REPORTS)
                print(f"reports: {REPORTS}/", flush=True)
            remove()


@contextmanager
def only_one() -> Iterator[int]:
    """Keep a second `make retrain` out of this repository, as long as a child that is given the descriptor lives.

    Raises ProjectError.
    """
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    with PLACE.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError("another `make retrain` is at work in this repository: let it end first") from None
        yield file.fileno()


def tree() -> Path:
    """Make the working tree of origin's main, with this one's environments, settings and cache, and return its path."""
    if not git.has_remote():
        raise ProjectError(f"no remote to propose a candidate to: `git remote add {git.REMOTE} URL`, and push main")
    main_commit = git.fetch(release.MAIN)
    if main_commit is None:
        raise ProjectError(f"{git.REMOTE} has no branch {release.MAIN} to retrain: push it first")
    if git.differ("HEAD", main_commit, "requirements"):
        raise ProjectError(
            f"the environments here are not those of {release.MAIN}: `git switch main && git pull` first"
        )
    remove()
    # Twice by force: one whose making was killed is locked, and was not pruned.
    git.run("worktree", "add", "--quiet", "--force", "--force", "--detach", str(PLACE), main_commit)
    place = PLACE.resolve()
    CHECKPOINTS.mkdir(exist_ok=True)
    for shared in (Path(".venv"), CHECKPOINTS):
        (place / shared).symlink_to(shared.resolve())
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copyfile(local, place / local)
    share_cache(place)
    return place


def share_cache(place: Path) -> None:
    """Let the working tree use this one's DVC cache."""
    from dvc.repo import Repo

    with Repo() as here:
        cache = here.cache.local_cache_dir
    with Repo(str(place)) as there, there.config.edit("local") as config:
        config["cache"]["dir"] = cache


def remove() -> None:
    """Remove the working tree, and what Git knows of it, whoever left it."""
    shutil.rmtree(PLACE, ignore_errors=True)
    git.run("worktree", "prune")


def environment(here: Path, place: Path) -> dict[str, str]:
    """Return the variables for what runs in the working tree `place`: its own code, and what lies beside `here`."""
    variables = os.environ | {"PYTHONPATH": str(place / "src")}
    for name, folder in DEFAULTS.items():
        address = variables.get(name) or (folder if (here / folder).exists() else "")
        variables[name] = str(here / address) if address and "://" not in address else address
    if not variables.get("MLFLOW_TRACKING_URI"):
        if not (here / "mlflow.db").exists():  # begun in the working tree, its runs' files would be gone with that
            tracking.connect(params.load(place / PARAMS))
        variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{here / 'mlflow.db'}"
    if not variables.get("TUNE_STORAGE"):
        variables["TUNE_STORAGE"] = f"sqlite:///{here / 'tune.db'}"
    variables |= absolute_origin(here, variables)
    if variables["REASON"].strip() == "drift" and not variables.get("MONITOR") and MONITOR.exists():
        variables["MONITOR"] = MONITOR.read_text(encoding="utf-8")
    return variables


def absolute_origin(here: Path, variables: dict[str, str]) -> dict[str, str]:
    """Return what has Git find an origin that is a relative path: it starts from whatever working tree it is in."""
    address = git.run("remote", "get-url", git.REMOTE)
    if ":" in address or Path(address).is_absolute():
        return {}
    count = int(variables.get("GIT_CONFIG_COUNT") or 0)
    return {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": f"url.{(here / address).resolve()}.insteadOf",
        f"GIT_CONFIG_VALUE_{count}": address,
    }


if __name__ == "__main__":
    run(main)
