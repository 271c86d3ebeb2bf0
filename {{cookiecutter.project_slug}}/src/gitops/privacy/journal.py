"""An erasure that was begun, in .dvc/tmp/erase: all that it takes to finish it, written before anything is changed.

A command that is killed is started again with the same id, and each step finds what was done: files are put in place
from here, whole, and the journal goes last. It holds no id, but a salted hash, by which another id is refused.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.integrations import dvc
from gitops.privacy.tables import Staged

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject

FOLDER = Path(".dvc/tmp/erase")
PLAN = FOLDER / "plan.json"


@dataclass
class Journal:
    """What is to be done, and what was found: counts, for the report."""

    tables: Staged
    forgotten: list[str]  # md5s of objects that DVC's cache is to lose
    report: dict[str, Any]
    salt: str = field(default_factory=lambda: secrets.token_hex(16))
    check: str = ""


def begun(subject: Subject) -> Journal | None:
    """Return the erasure that was broken off; None where there is none. Raises ProjectError where it has another id."""
    if not PLAN.exists():
        return None
    values = artifacts.read_json(PLAN, "make erase")
    journal = Journal(**values | {"tables": Staged(**values["tables"])})
    if journal.check != _check(subject, journal.salt):
        raise ProjectError("an erasure with another ID was broken off: run `make erase` with that one first")
    return journal


def folder() -> Path:
    """Return the folder for what replaces the project's files, empty: a run that was killed there has changed none."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    return FOLDER


def begin(journal: Journal, subject: Subject) -> None:
    """Write the plan: from here on the erasure is finished, by whichever run."""
    journal.check = _check(subject, journal.salt)
    artifacts.write_json(PLAN, asdict(journal))


def replace(staged: Staged) -> None:
    """Put the staged files in place, as new versions of what DVC tracks, and write data/appended.json."""
    for name, target in staged.moves.items():
        with artifacts.replacing(Path(target)) as temporary:
            shutil.copyfile(FOLDER / name, temporary)
    for path in {*staged.removals} - {*staged.moves.values()}:
        Path(path).unlink(missing_ok=True)
    for path in staged.tracked:
        dvc.add(Path(path))
    if staged.state is not None:
        table = {"table": artifacts.tracked_md5(Path(staged.table))} if staged.table else {}
        artifacts.write_json(APPENDED, staged.state | table)


def end() -> None:
    """Remove the journal: the plan last, so that a run that is killed here is finished by the next."""
    for path in FOLDER.iterdir():
        if path != PLAN:
            path.unlink()
    PLAN.unlink()
    FOLDER.rmdir()


def _check(subject: Subject, salt: str) -> str:
    return hashlib.sha256(json.dumps([salt, subject.value, subject.column]).encode()).hexdigest()
