"""`make retrain REASON=...`: train on the newest data and propose the result as a branch, on GitHub as a pull request.

In a workflow it proposes nothing, since its token can only read: it leaves the candidate for the job that runs
`make propose`.

The working tree and branch of the person who runs it stay as they are: the work happens in a second working tree at
the newest commit of main, .dvc/tmp/retrain, which each run creates anew, so that nothing a killed run has left is used.
Both trees share DVC's cache, the checkpoint of a training and the study of a search for settings, which a later run
uses again for the same inputs.
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
from gitops.core.artifacts import CHECKPOINTS, MONITOR, PARAMS, ProjectError, run
from gitops.core.console import echo
from gitops.integrations import git, git_command, mlflow_files, tracking
from gitops.integrations.git import MAIN
from gitops.monitoring.request_log import DEFAULTS
from gitops.releases import trained
from gitops.retraining import handover

WORKTREE = Path(".dvc/tmp/retrain")
REPORTS = Path("reports/retrain")


def main() -> int:
    """Run candidate.py in the second working tree and return its exit status. Raises ProjectError."""
    if not os.environ.get("REASON", "").strip():
        raise ProjectError('REASON is not set: say why, as in `make retrain REASON="labels of the spring"`')
    with lock() as descriptor:
        shutil.rmtree(handover.FOLDER, ignore_errors=True)  # an earlier run's
        project, worktree = Path.cwd(), create_worktree()
        try:
            command = [sys.executable, "-m", "gitops.retraining.candidate"]
            variables = environment(project, worktree)
            return subprocess.run(command, cwd=worktree, env=variables, pass_fds=[descriptor], check=False).returncode
        finally:
            shutil.rmtree(REPORTS, ignore_errors=True)
            if (worktree / "reports").exists():
                shutil.copytree(worktree / "reports", REPORTS)
                echo(f"reports: {REPORTS}/")
            for left in (trained.SHARED, handover.FOLDER):  # for the artifacts of a workflow's run
                if (worktree / left).exists():
                    shutil.copytree(worktree / left, left, dirs_exist_ok=True)
            remove_worktree()


@contextmanager
def lock() -> Iterator[int]:
    """Yield a file descriptor; as long as it is open, here or in a child process, a second `make retrain` is refused.

    Raises ProjectError where another one holds the lock.
    """
    WORKTREE.parent.mkdir(parents=True, exist_ok=True)
    with WORKTREE.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError("another `make retrain` is running in this repository: wait until it ends") from None
        yield file.fileno()


def create_worktree() -> Path:
    """Create the working tree at origin's main, with this one's environments, settings and cache; return its path.

    Raises ProjectError where there is no such branch, or its environments are not the ones here.
    """
    if not git.has_remote():
        raise ProjectError(f"no remote to push a candidate to: `git remote add {git.REMOTE} URL`, and push main")
    main_commit = git.fetch(MAIN)
    if main_commit is None:
        raise ProjectError(f"{git.REMOTE} has no branch {MAIN} to retrain: push it first")
    if git.differ("HEAD", main_commit, "requirements"):
        raise ProjectError(f"the environments here are not those of {MAIN}: `git switch main && git pull` first")
    remove_worktree()
    # --force twice: Git has locked a working tree whose creation was killed, and does not prune it.
    git.run("worktree", "add", "--quiet", "--force", "--force", "--detach", str(WORKTREE), main_commit)
    worktree = WORKTREE.resolve()
    CHECKPOINTS.mkdir(exist_ok=True)
    for shared in (Path(".venv"), CHECKPOINTS):
        (worktree / shared).symlink_to(shared.resolve())
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copyfile(local, worktree / local)
    share_cache(worktree)
    return worktree


def share_cache(worktree: Path) -> None:
    """Let the working tree use this one's DVC cache. DVC itself cannot write a setting that is not ASCII."""
    from configobj import ConfigObj
    from dvc.repo import Repo

    with Repo() as here:
        cache = here.cache.local_cache_dir
    local = ConfigObj(str(worktree / ".dvc/config.local"), encoding="utf-8")
    local.setdefault("cache", {})["dir"] = cache
    local.write()


def remove_worktree() -> None:
    """Remove the working tree and Git's record of it, whichever run has left it."""
    shutil.rmtree(WORKTREE, ignore_errors=True)
    git.run("worktree", "prune")


def environment(project: Path, worktree: Path) -> dict[str, str]:
    """Return the variables of the process in the working tree: its own code, with logs and databases of `project`."""
    variables = git_command.environment() | {"PYTHONPATH": str(worktree / "src")}
    for name, folder in DEFAULTS.items():
        address = variables.get(name) or (folder if (project / folder).exists() else "")
        variables[name] = str(project / address) if address and "://" not in address else address
    if not variables.get("MLFLOW_TRACKING_URI"):
        if not (project / "mlflow.db").exists():  # created in the working tree, its files would be removed with that
            tracking.connect(params.load(worktree / PARAMS))
        mlflow_files.follow_move()
        variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{project / 'mlflow.db'}"
    if not variables.get("TUNE_STORAGE"):
        variables["TUNE_STORAGE"] = f"sqlite:///{project / 'tune.db'}"
    variables |= absolute_origin(project, variables)
    if variables["REASON"].strip() == "drift" and not variables.get("MONITOR") and MONITOR.exists():
        variables["MONITOR"] = MONITOR.read_text(encoding="utf-8")
    return variables


def absolute_origin(project: Path, variables: dict[str, str]) -> dict[str, str]:
    """Return variables that make Git resolve an origin with a relative path from `project`, not from a working tree."""
    address = git.run("remote", "get-url", git.REMOTE)
    if ":" in address or Path(address).is_absolute():
        return {}
    count = int(variables.get("GIT_CONFIG_COUNT") or 0)
    return {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": f"url.{(project / address).resolve()}.insteadOf",
        f"GIT_CONFIG_VALUE_{count}": address,
    }


if __name__ == "__main__":
    run(main)
