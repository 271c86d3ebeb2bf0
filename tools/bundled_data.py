# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.6"]
# ///
"""Write the bundled table into the template: `uv run tools/bundled_data.py`.

It is scikit-learn's breast cancer table (Wolberg, Street and Mangasarian, "Breast Cancer Wisconsin (Diagnostic)", UCI
Machine Learning Repository, 1993, doi:10.24432/C5DW2B, CC BY 4.0): 569 rows, 30 numbers, and `diagnosis`, which is
malignant or benign. It is written as `dvc add data/raw.csv` and `dvc push` would leave it: the table itself in the
folder remote under its md5, its pointer in data/, and a .gitignore that lets Git track these objects of the remote. So
is the folder data/appended for the rows that retrainings append, with a text that says so: DVC warns of an empty one.

A project with a feature store gets two tables in its place, which lie in feature-store/: the patients with the time of
their diagnosis, and for each three rows of features, as they were before (made up), as the table has them, and as they
were found afterwards (made up). Training must see the second ones, a server that is asked by an id the third.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"

POINTER = """\
outs:
- md5: {md5}
  size: {size}
{count}  hash: md5
  path: {path}
"""

README = b"""\
Rows that `make retrain` has appended to the table, each retraining's in a file of its own.
data/appended.json lists them. Do not edit them: docs/system-design.md, "Retraining", says what holds for them.
"""

IGNORE = """\
# The bundled data are part of the repository; what `dvc push` adds beside them stays on this machine.
*
!/.gitignore
!/files/
!/files/md5/
"""

DAYS = 730  # over which the diagnoses are spread


def table() -> bytes:
    """Return the table as CSV, numbers as short as they read back unchanged."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    rows = zip(source.data.tolist(), source.target, strict=True)
    return _csv([*source.feature_names, "diagnosis"], ([*values, source.target_names[one]] for values, one in rows))


def pair() -> tuple[bytes, bytes]:
    """Return the observations and the features' history as CSV."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    patients = range(1, len(source.data) + 1)
    names = (source.target_names[one] for one in source.target)
    observations = ([patient, _seen(patient).isoformat(), name] for patient, name in zip(patients, names, strict=True))
    history = (
        row for patient, values in zip(patients, source.data.tolist(), strict=True) for row in _rows(patient, values)
    )
    return (
        _csv(["patient", "observed_at", "diagnosis"], observations),
        _csv(["patient", "event_timestamp", *source.feature_names], history),
    )


def _seen(patient: int) -> datetime:
    """Return when a patient was diagnosed: multiplied by a prime the numbers are spread, whatever the classes are."""
    return datetime(2024, 1, 1, 8) + timedelta(days=patient * 263 % DAYS, minutes=patient * 37 % 600)


def _rows(patient: int, values: list[float]) -> Iterator[list[object]]:
    """Yield a patient's three rows; each fifth patient's measurement is of the diagnosis' very minute."""
    seen = _seen(patient)
    change = 1 + (patient * 7 % 10 + 1) / 100  # by 1 to 10 %
    before, since = timedelta(days=30 + patient % 60), timedelta(hours=patient % 5)
    yield [patient, (seen - before).isoformat(), *(float(f"{value / change:.4g}") for value in values)]
    yield [patient, (seen - since).isoformat(), *values]
    yield [
        patient,
        (seen + timedelta(days=1 + patient % 90)).isoformat(),
        *(float(f"{value * change:.4g}") for value in values),
    ]


def _csv(header: list[str], rows: Iterator[list[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def main() -> None:
    labels, history = pair()
    appended = {"README.md": README}
    write({PROJECT / "data/raw.csv.dvc": table(), PROJECT / "data/appended.dvc": appended}, PROJECT / "dvc-remote")
    bundle = PROJECT / "feature-store"
    write({bundle / "raw.csv.dvc": labels, bundle / "features.csv.dvc": history}, bundle / "dvc-remote")


def write(data: dict[Path, bytes | dict[str, bytes]], remote: Path) -> None:
    """Write files, and folders of them, given by the path of their pointer, as objects of the folder remote."""
    objects = remote / "files" / "md5"
    for old in objects.glob("*/*"):
        old.unlink()
        old.parent.rmdir()
    ignore = IGNORE
    for pointer, content in data.items():
        files = {"": content} if isinstance(content, bytes) else content
        size, count, found = sum(map(len, files.values())), "", [(_md5(one), one) for one in files.values()]
        md5 = found[0][0]
        if not isinstance(content, bytes):  # the object of a folder lists its files
            listing = [{"md5": md5, "relpath": name} for (md5, _), name in zip(found, files, strict=True)]
            text = json.dumps(listing).encode()
            md5, count = f"{_md5(text)}.dir", f"  nfiles: {len(files)}\n"
            found.append((md5, text))
        for name, one in found:
            (objects / name[:2]).mkdir(parents=True, exist_ok=True)
            (objects / name[:2] / name[2:]).write_bytes(one)
            ignore += f"!/files/md5/{name[:2]}/\n!/files/md5/{name[:2]}/{name[2:]}\n"
        pointer.write_text(POINTER.format(md5=md5, size=size, count=count, path=pointer.stem))
        print(f"{pointer}: md5 {md5}, {size} bytes")
    (remote / ".gitignore").write_text(ignore)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
