"""Run stages as `dvc repro` does, and those that do not depend on each other beside each other.

    python -m gitops.integrations.dvc_repro force|pull [--beside] STAGE ...

DVC itself runs one after the other, and takes a second to start. What it prints stays as it is; what stages print that
run beside others comes when both have ended.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from gitops.core import artifacts, threads
from gitops.core.console import echo
from gitops.integrations import dvc_stages

#: What `dvc repro` is asked to do: run each stage, and take no earlier result; or only those that are stale, and fetch
#: the results of other machines from the remote.
OPTIONS: dict[str, dict[str, bool]] = {"force": {"force": True, "run_cache": False}, "pull": {"pull": True}}

#: Says that the stages are those which another process has left to this one.
BESIDE = "--beside"


def reproduce(stages: Sequence[str], how: str) -> bool:
    """Run the stages, given in an order in which they can run; return whether all that had to run did so.

    Two stages run at a time at most, and one of a large table, because each has the rows that it reads in memory.
    Raises ProjectError where dvc.yaml cannot be read.
    """
    first, others = dvc_stages.split(stages)
    if not threads.small(artifacts.TRAIN):
        first, others = list(stages), []
    beside = _start(others, how) if others else None
    try:
        done = _run(first, how)
    finally:
        ended = _end(*beside) if beside else True
    dvc_stages.sort_lock()
    return done and ended


def _run(stages: Sequence[str], how: str) -> bool:
    """Run the stages in this process. DVC says what fails, as `dvc repro` would."""
    from dvc.repo import Repo

    if not stages:
        return True
    try:
        with Repo(_wait_for_lock=True) as repository:  # another process may just be writing dvc.lock
            repository.scm_context.quiet = True  # `make pipeline` says at its end what to commit
            repository.reproduce(list(stages), single_item=True, **OPTIONS[how])
    except Exception:
        logging.getLogger("dvc").exception("")
        return False
    return True


def _start(stages: Sequence[str], how: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    output = tempfile.TemporaryFile()  # noqa: SIM115  # _end closes it
    command = [sys.executable, "-m", "gitops.integrations.dvc_repro", how, BESIDE, *stages]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), output


def _end(process: subprocess.Popen[bytes], output: IO[bytes]) -> bool:
    status = process.wait()
    with output:
        output.seek(0)
        echo(*output.read().decode(errors="replace").splitlines())
    return status == 0


def main() -> int:
    """Run the stages that the command line names; return 0, or 1 where one failed."""
    how, *stages = sys.argv[1:]
    # Beside other stages nothing may be read before DVC has its lock: they write dvc.lock.
    done = _run(stages[1:], how) if stages[0] == BESIDE else reproduce(stages, how)
    return 0 if done else 1


if __name__ == "__main__":
    artifacts.run(main)
