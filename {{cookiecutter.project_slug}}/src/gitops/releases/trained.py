"""The trained model of a branch, shared under the hash of what it was trained from.

A model is trained once, on a branch, and main takes it over (deployment/verify.py). So `make share` keeps, in the
branches' own place of the DVC remote, and in GitHub Actions as an artifact of the run, a folder named by the inputs of
stage `train`: its command, the md5 of each dependency, its parameters. The folder holds dvc.lock, the stage's outputs,
and the results that the branch's report has shown. So dvc.lock need not be committed. All of it is a claim.

That is all that a workflow's run on a branch writes there. `make push`, for people, pushes with DVC before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import DECISION, MODEL, RUN, ProjectError, digest, run
from gitops.core.console import echo, one_line
from gitops.integrations import dvc, dvc_remote, dvc_stages, exported_program, github_artifacts
from gitops.integrations.dvc_stages import Entry
from gitops.tabular import decision

STAGE = "train"

#: Where branches write in the DVC remote, and nothing else is.
PLACE = "branches"

#: Folders of this workspace: what is shared, and what was taken over.
SHARED, TAKEN = Path("build/trained"), Path("build/taken")

LOCK = "dvc.lock.json"

#: Results that main compares with its own.
RESULTS = tuple(
    path.as_posix()
    for path in (artifacts.METRICS, artifacts.DATA_VERDICT, artifacts.MODEL_VERDICT, artifacts.GOLDEN_RESPONSE)
)


@dataclass(frozen=True)
class Claim:
    """What somebody says that the stages' results are: entries of dvc.lock, and how a file in them can be had."""

    source: str
    lock: dict[str, Entry]
    get: Callable[[str, str], Path | None]  # path and md5 -> a file with that md5, or None


def inputs(entry: Entry) -> dict[str, Any]:
    """Return all that an entry of dvc.lock says a stage's results were made from."""
    dependencies = {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}
    found = {"cmd": entry["cmd"], "deps": dependencies, "params": entry.get("params", {})}
    normal: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True, default=str))
    return normal


def key(wanted: dict[str, Any]) -> str:
    """Return the name under which a model with these inputs is shared: a sha256."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def main() -> None:
    """Share the workspace's trained model, and with --dvc all data and results before."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dvc", action="store_true", help="push data and results to the DVC remote before")
    if parser.parse_args().dvc:
        push()
    else:
        hand_over()


def push() -> None:
    """Push data and results to the DVC remote, and share the trained model. Raises ProjectError."""
    dvc.push()
    hand_over()


def hand_over() -> None:
    """Share the trained model, and name it for the workflow's next step if that is to keep it. Raises ProjectError."""
    name = share()
    actions.output({"trained": name if name and dvc_remote.in_repository() else ""})


def share() -> str | None:
    """Share the trained model and return its name; None where there is none for what is in the workspace."""
    stages, changed = dvc_stages.lock(), dvc.changed()
    if STAGE in changed or STAGE not in stages:
        echo(f"no model is shared: stage {STAGE} has not run on what is here")
        return None
    model_files = dvc_stages.outputs(stages[STAGE])
    if folders := [path for path, md5 in model_files.items() if md5.endswith(dvc_stages.FOLDER)]:
        echo(f"no model is shared, and main trains: name the files of {folders[0]} as outputs in dvc.yaml")
        return None
    name = key(inputs(stages[STAGE]))
    folder = SHARED / name
    shutil.rmtree(SHARED, ignore_errors=True)
    results = {path for stage in stages if stage not in changed for path in dvc_stages.outputs(stages[stage])}
    files = [*model_files, *(path for path in RESULTS if path in results)]
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path)
    artifacts.write_json(folder / LOCK, stages)
    dvc_remote.upload(folder, f"{PLACE}/{name}", [*files, LOCK])  # the lock last: with it the folder is complete
    echo(f"the trained model is shared as {name}")
    return name


def claims(wanted: dict[str, Any], own: dict[str, Entry], model_files: list[str]) -> Iterator[Claim]:
    """Yield claims about a model with the inputs `wanted`: of dvc.lock, whose entries are `own`, and of what is shared.

    Raises ProjectError where the DVC remote or GitHub cannot be read.
    """
    yield Claim("dvc.lock", own, _object)
    yield from shared(wanted, model_files)


def shared(wanted: dict[str, Any], model_files: list[str]) -> Iterator[Claim]:
    """Yield the claim that a branch has shared about a model with the inputs `wanted`, if there is one.

    Of a shared folder only `model_files`, the outputs of stage `train`, and RESULTS are read. Raises ProjectError where
    the DVC remote or GitHub cannot be read.
    """
    name = key(wanted)
    folder, files = TAKEN / name, [*model_files, *RESULTS]
    shutil.rmtree(TAKEN, ignore_errors=True)
    if dvc_remote.download(f"{PLACE}/{name}", folder, [LOCK]):  # without it there is nothing else
        dvc_remote.download(f"{PLACE}/{name}", folder, files)
        yield _read(folder, "the branches' part of the DVC remote")
    elif github_artifacts.available() and github_artifacts.download(f"trained-{name}", folder, [LOCK, *files]):
        yield _read(folder, "the artifact of a run")


def take_over(claim: Claim, wanted: dict[str, Any], files: list[str]) -> bool:
    """Put the claimed outputs of `train` into the workspace, if they are of the inputs `wanted` and can all be had.

    Raises ProjectError where the model is none, or holds what would run when it is read, and where its run or its
    decision is none.
    """
    entry = claim.lock.get(STAGE)
    if entry is None or inputs(entry) != wanted:
        return False
    md5s = dvc_stages.outputs(entry)
    found = {path: claim.get(path, md5s[path]) for path in files if path in md5s}
    if {*found} != {*files} or None in found.values():
        echo(f"the model of {claim.source} was trained on these inputs, and its files cannot be had")
        return False
    have = {path: file for path, file in found.items() if file}
    exported_program.check(have[str(MODEL)], MODEL)
    _check_run(have[str(RUN)])
    _check_decision(have[str(DECISION)])
    for path, file in have.items():
        with artifacts.replacing(Path(path)) as temporary:
            shutil.copyfile(file, temporary)
    return True


def _check_run(path: Path) -> None:
    """Raise ProjectError where the file does not name an MLflow run: the record of a release holds its id."""
    known = artifacts.read_json(path, "make pipeline")
    run_id = known.get("run_id") if isinstance(known, dict) else None
    if not re.fullmatch(r"[0-9a-f]{32}", str(run_id)):
        raise ProjectError(f"{RUN} of the branch names no MLflow run, but {one_line(run_id, 60)!r}")


def _check_decision(path: Path) -> None:
    """Raise ProjectError where the file is no decision of a model for this task, or was made by another metric."""
    found, settings = artifacts.read_json(path, "make pipeline"), params.load()
    decision.check(found, settings.data.task)
    if found and found["metric"] != settings.train.threshold:
        raise ProjectError(
            f"{DECISION} of the branch is chosen by {one_line(found['metric'], 60)!r}, and train.threshold is "
            f"{settings.train.threshold!r}"
        )


def _object(_: str, md5: str) -> Path | None:
    if md5.endswith(dvc_stages.FOLDER):  # its object is the list of its files
        return None
    try:
        return dvc.fetch(md5)
    except ProjectError:  # it was never pushed, or is not what its name says
        return None


def _read(folder: Path, source: str) -> Claim:
    """Return the claim in a shared folder. Raises ProjectError where that is not what `share` has written."""

    def get(path: str, md5: str) -> Path | None:
        file = folder / path
        return file if file.is_file() and digest(file, "md5") == md5 else None

    stages = artifacts.read_json(folder / LOCK, "make share")
    try:
        for entry in stages.values():
            inputs(entry), dvc_stages.outputs(entry)
    except (AttributeError, KeyError, TypeError) as error:
        raise ProjectError(f"{source} holds no dvc.lock under the name {folder.name}: delete it there") from error
    return Claim(source, stages, get)


if __name__ == "__main__":
    run(main)
