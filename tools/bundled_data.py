# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.6"]
# ///
"""Write the bundled table into the template: `uv run tools/bundled_data.py`.

It is scikit-learn's breast cancer table (Wolberg, Street and Mangasarian, "Breast Cancer Wisconsin (Diagnostic)", UCI
Machine Learning Repository, 1993, doi:10.24432/C5DW2B, CC BY 4.0): 569 rows, 30 numbers, and `diagnosis`, which is
malignant or benign. It is written as `dvc add data/raw.csv` and `dvc push` would leave it: the table itself in the
folder remote under its md5, its pointer in data/, and a .gitignore that lets Git track this one object of the remote.
"""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"

POINTER = """\
outs:
- md5: {md5}
  size: {size}
  hash: md5
  path: raw.csv
"""

IGNORE = """\
# The bundled table is part of the repository; what `dvc push` adds beside it stays on this machine.
*
!/.gitignore
!/files/
!/files/md5/
!/files/md5/{folder}/
!/files/md5/{folder}/{name}
"""


def table() -> bytes:
    """Return the table as CSV, numbers as short as they read back unchanged."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*source.feature_names, "diagnosis"])
    for values, diagnosis in zip(source.data.tolist(), source.target, strict=True):
        writer.writerow([*values, source.target_names[diagnosis]])
    return text.getvalue().encode()


def main() -> None:
    content = table()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    remote = PROJECT / "dvc-remote"
    objects = remote / "files" / "md5"
    for old in objects.glob("*/*"):
        old.unlink()
        old.parent.rmdir()
    (objects / md5[:2]).mkdir(parents=True)
    (objects / md5[:2] / md5[2:]).write_bytes(content)
    (remote / ".gitignore").write_text(IGNORE.format(folder=md5[:2], name=md5[2:]))
    (PROJECT / "data" / "raw.csv.dvc").write_text(POINTER.format(md5=md5, size=len(content)))
    print(f"{PROJECT / 'data' / 'raw.csv.dvc'}: md5 {md5}, {len(content)} bytes")


if __name__ == "__main__":
    main()
