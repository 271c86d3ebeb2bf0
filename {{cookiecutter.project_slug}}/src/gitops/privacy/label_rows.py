"""Labels without those of the subject's requests; what else a file of labels holds stays as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.sections import Csv
from gitops.monitoring import request_log
from gitops.monitoring.log_files import Folder
from gitops.monitoring.request_ids import Key
from gitops.privacy import rows

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject


@dataclass
class Found:
    """The labels of the subject's requests, and the files that have them."""

    files: int = 0
    labels: int = 0


def search(subject: Subject, keys: set[Key], csv: Csv) -> Found:
    """Find the labels of the requests `keys`, and those that name the subject. Raises ProjectError."""
    return _visit(subject, keys, csv, erase=False)


def erase(subject: Subject, keys: set[Key], csv: Csv) -> Found:
    """Take these labels out, file by file, each as a whole or not at all. Raises ProjectError."""
    return _visit(subject, keys, csv, erase=True)


def _visit(subject: Subject, keys: set[Key], csv: Csv, *, erase: bool) -> Found:
    found = Found()
    if request_log.absent("LABELS"):
        return found
    with request_log.opened("LABELS") as folder:
        for name, content in folder.contents((".parquet", ".csv")):
            with _copied(name, content) as (copy, made):
                positions = _positions(copy, subject, keys, csv) if content else []
                if not positions:
                    continue
                found.files += 1
                found.labels += len(positions)
                if erase:
                    rows.write_without(copy, made, positions, csv)
                    _replace(folder, folder.path(name), made)
    return found


@contextmanager
def _copied(name: str, content: bytes) -> Iterator[tuple[Path, Path]]:
    """Yield a copy of a file of labels on this machine, and a path for what it becomes."""
    with tempfile.TemporaryDirectory(prefix="labels-") as folder:
        copy, made = (Path(folder, f"{which}{Path(name).suffix}") for which in ("labels", "made"))
        copy.write_bytes(content)
        yield copy, made


def _replace(folder: Folder, path: str, made: Path) -> None:
    if folder.local:
        with artifacts.replacing(Path(path)) as target:
            target.write_bytes(made.read_bytes())
    else:  # an object is written as a whole or not at all
        folder.files.pipe_file(path, made.read_bytes())
        folder.files.invalidate_cache(path)


def _positions(path: Path, subject: Subject, keys: set[Key], csv: Csv) -> list[int]:
    """Return the numbers of the rows that are labels of the subject's."""

    def wanted(request_id: Any, instance: Any, own: Any) -> bool:
        if subject.column is None:
            return subject.equals(request_id)
        return subject.equals(own) or (str(request_id).strip(), _instance(instance)) in keys

    columns = ["request_id", "instance", subject.column or ""]
    if path.suffix == ".csv":
        return rows.matching(path, csv, columns, wanted)
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=[name for name in pq.read_schema(path).names if name in columns])
    cells = ([row.get(name) for name in columns] for row in table.to_pylist())
    return [at for at, row in enumerate(cells) if wanted(*row)]


def _instance(value: Any) -> int:
    """Return the index of an instance; as monitoring/labels.py has it, one that is missing is the first."""
    try:
        return int(float(value or 0))
    except (ValueError, OverflowError):
        return -1
