"""Remove from the DVC remote what nothing names any more (`make gc`): old models, tables, results of branches.

What goes is older than --days and named by no release, branch, tag or environment (named.py). Other tools know DVC's
files but not the release log: `dvc gc` would take the models that a rollback needs. Everything is shown before anything
is removed, and a remote that another project writes to is refused. A command that is killed has removed less, and
nothing that is needed: entries go before the objects that they name.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gitops.core.artifacts import ProjectError, run
from gitops.core.console import confirmed, echo
from gitops.integrations import dvc_contents, dvc_remote
from gitops.integrations.dvc_contents import OBJECTS, PROJECTS, RUNS, Stored
from gitops.integrations.dvc_stages import FOLDER
from gitops.releases.named import MD5, Named, named
from gitops.releases.trained import PLACE

DAYS = 90  # as long as GitHub keeps a run's artifacts
LISTED = 5  # of each kind, the largest ones


@dataclass
class Sorted:
    """The remote's files by kind: what goes, and the size of what stays."""

    gone: dict[str, list[Stored]]
    kept: int

    @property
    def size(self) -> int:
        return sum(file.size for files in self.gone.values() for file in files)


def main() -> None:
    """Show what would go, ask, and remove it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--days", type=int, default=DAYS, help=f"remove only what is older; {DAYS} by default")
    parser.add_argument("--yes", action="store_true", help="remove it without asking")
    arguments = parser.parse_args()
    if arguments.days < 1:
        parser.error(f"--days is {arguments.days}: at least 1, as what is being pushed now is named by nothing yet")
    refuse_shared()
    found = select(named(), datetime.now(UTC) - timedelta(days=arguments.days))
    show(found, arguments.days)
    if not found.gone or not (arguments.yes or confirmed("Remove them?")):
        return
    for files in found.gone.values():
        dvc_contents.remove(file.path for file in files)
    echo(f"removed {found.size / 1e6:,.1f} MB")
    if dvc_remote.in_repository():
        echo("the remote lies in this repository: commit the removal, as a pull request; Git's history keeps the files")


def refuse_shared() -> None:
    """Raise ProjectError where other projects use the remote: what they name is not known here."""
    own = dvc_contents.project()
    others = [file.path for file in dvc_contents.stored(PROJECTS) if file.path != f"{PROJECTS}/{own}"]
    if others:
        names = ", ".join(dvc_contents.read(path).decode(errors="replace").strip()[:60] for path in others[:5])
        raise ProjectError(
            f"the DVC remote is used by another project too ({names}), and what that needs is not known here: give "
            f"each its own; if it is gone, remove {others[0]} from the remote"
        )


def select(wanted: Named, before: datetime) -> Sorted:
    """Return what is older than `before` and not in `wanted`, in the order in which it may be removed."""
    by_md5 = {"".join(file.path.split("/")[-2:]): file for file in dvc_contents.stored(OBJECTS)}
    stay = wanted.md5s | {md5 for md5, file in by_md5.items() if file.written >= before}
    stay |= _members(stay, by_md5)
    gone = {md5: file for md5, file in by_md5.items() if md5 not in stay}
    runs = [file for file in dvc_contents.stored(RUNS) if not gone.keys().isdisjoint(_outputs(file))] if gone else []
    kinds = {
        "entries of the run cache": runs,
        "files of trained models that branches have shared": _shared(wanted.trainings, before),
        "folders": [file for md5, file in gone.items() if md5.endswith(FOLDER)],
        "objects": [file for md5, file in gone.items() if not md5.endswith(FOLDER)],
    }
    kept = sum(file.size for md5, file in by_md5.items() if md5 in stay)
    return Sorted({kind: files for kind, files in kinds.items() if files}, kept)


def _shared(trainings: set[str], before: datetime) -> list[Stored]:
    """Return the files of those shared models of which all are older than `before`, and that nothing names."""
    models: dict[str, list[Stored]] = {}
    for file in dvc_contents.stored(PLACE):
        models.setdefault(file.path.split("/")[1], []).append(file)
    old = [name for name, files in models.items() if max(file.written for file in files) < before]
    return [file for name in old if name not in trainings for file in models[name]]


def _members(md5s: set[str], by_md5: dict[str, Stored]) -> set[str]:
    """Return the md5s of the files in those folders of `md5s` that the remote has. Raises ProjectError."""
    members: set[str] = set()
    for md5 in md5s:
        if md5.endswith(FOLDER) and md5 in by_md5:
            try:
                members |= {str(file["md5"]) for file in json.loads(dvc_contents.read(by_md5[md5].path))}
            except (ValueError, KeyError, TypeError) as error:
                raise ProjectError(f"{by_md5[md5].path} of the DVC remote lists no files") from error
    return members


def _outputs(entry: Stored) -> set[str]:
    """Return the md5s that an entry of the run cache says its stage has written."""
    outs = dvc_contents.read(entry.path).decode(errors="replace").partition("\nouts:\n")[2]
    return {line[0][5:] for line in re.finditer(MD5, outs)}


def show(found: Sorted, days: int) -> None:
    """Print what goes, by kind, with the largest files of each."""
    echo(
        f"stays: {found.kept / 1e6:,.1f} MB that releases, branches and environments name, or younger than {days} days"
    )
    if not found.gone:
        echo("goes: nothing")
    for kind, files in found.gone.items():
        echo(f"goes: {len(files)} {kind}, {sum(file.size for file in files) / 1e6:,.1f} MB")
        for file in sorted(files, key=lambda file: -file.size)[:LISTED]:
            echo(f"  {file.size / 1e6:10,.2f} MB  {file.written:%Y-%m-%d}  {file.path}")
        if len(files) > LISTED:
            echo(f"  and {len(files) - LISTED} more")


if __name__ == "__main__":
    run(main)
