"""Compare results that a branch claims with main's own for the same inputs.

Numbers may differ by TOLERANCE, as machines round differently; HTML, explanations and the words of a check's details
are not compared. A claim about other inputs, such as a dvc.lock of another commit, says nothing about these, and a
result of which nobody has the contents cannot be compared: main's own counts in any case.
"""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.integrations import dvc, dvc_stages
from gitops.integrations.dvc_stages import Entry
from gitops.releases.trained import STAGE, Claim, inputs

#: By how much two numbers may differ; of numbers above 1, relative to the larger one.
TOLERANCE = 1e-6

#: Results that decide nothing. The order of answers that nearly are the same, thus the importance of a column, differs
#: by more than the answers do.
NOT_COMPARED = (".html", artifacts.EXPLANATIONS.as_posix())

#: Texts of reports/validate_*.json that quote rounded numbers.
WORDS = ("details", "reason")


def differences(claims: Iterable[Claim], own: dict[str, Entry]) -> tuple[list[str], int]:
    """Return a line for each result that differs from `own`, main's entries of dvc.lock, and how many were compared.

    A line names the file, where the claim comes from, and what differs.
    """
    found, compared = [], 0
    for claim in claims:
        for path, theirs in _claimed(claim, own):
            compared += 1
            if problem := next(differing(path, theirs, Path(path)), None):
                found.append(f"{path}, by {claim.source}: {problem}")
    return found, compared


def _claimed(claim: Claim, own: dict[str, Entry]) -> Iterator[tuple[str, Path]]:
    """Yield path and claimed file of each result that is not main's, though it is said to be of the same inputs."""
    for stage, entry in own.items():
        if stage == STAGE or stage not in claim.lock or inputs(claim.lock[stage]) != inputs(entry):
            continue
        ours, theirs = dvc_stages.outputs(entry), dvc_stages.outputs(claim.lock[stage])
        for path, md5 in theirs.items():
            if path in ours and md5 != ours[path] and not path.endswith(NOT_COMPARED):
                yield from _files(claim, path, md5, ours[path])


def _files(claim: Claim, path: str, md5: str, ours: str) -> Iterator[tuple[str, Path]]:
    """Yield path and claimed file of an output, or of each file of a folder that main's has too: no others are read."""
    files = {path: md5}
    if ours.endswith(dvc_stages.FOLDER):
        own = dvc_stages.listed(path, dvc.cached(ours))
        listing = claim.get(path, md5)
        try:
            theirs = dvc_stages.listed(path, listing) if listing else {}
        except (ValueError, KeyError, TypeError):
            theirs = {}
        files = {name: theirs[name] for name in own if name in theirs and theirs[name] != own[name]}
    for name, object_md5 in files.items():
        if file := claim.get(name, object_md5):
            yield name, file


def differing(path: str, theirs: Path, ours: Path) -> Iterator[str]:
    """Yield what differs between two files of the kind that the name `path` says."""
    try:
        if path.endswith(".mar"):
            yield from _archives(theirs, ours)
        elif path.endswith(".json"):
            yield from _values(json.loads(theirs.read_bytes()), json.loads(ours.read_bytes()), "")
        elif path.endswith(".csv"):
            yield from _values(_table(theirs), _table(ours), "")
        elif path.endswith(".parquet"):
            yield from _frames(theirs, ours)
        elif theirs.read_bytes() != ours.read_bytes():
            yield "other contents"
    except (ValueError, KeyError, TypeError, OSError, RecursionError, zipfile.BadZipFile, csv.Error) as error:
        yield f"it cannot be read ({type(error).__name__})"


def _values(theirs: Any, ours: Any, at: str) -> Iterator[str]:
    if _number(theirs) and _number(ours):
        if not math.isclose(theirs, ours, rel_tol=TOLERANCE, abs_tol=TOLERANCE) and theirs != ours:
            yield f"{at or 'value'} is {theirs!r}, and {ours!r} here"
    elif isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        for key in ours:
            if key not in WORDS:
                yield from _values(theirs[key], ours[key], f"{at}.{key}".strip("."))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _values(*pair, f"{at}[{index}]")
    elif theirs != ours or type(theirs) is not type(ours):
        yield f"{at or 'value'} differs"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(path: Path) -> list[list[float | str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [[_cell(cell) for cell in row] for row in csv.reader(file)]


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _frames(theirs: Path, ours: Path) -> Iterator[str]:
    import pandas as pd
    import pyarrow.parquet as pq

    other, own = (pq.read_metadata(str(file)) for file in (theirs, ours))
    names = own.schema.to_arrow_schema().names
    if other.schema.to_arrow_schema().names != names or other.num_rows != own.num_rows:
        yield "other rows or columns"
        return
    for name in names:  # one after the other: together they are as large as the table
        left, right = (artifacts.read_parquet(file, [name])[name] for file in (theirs, ours))
        try:
            pd.testing.assert_series_equal(left, right, rtol=TOLERANCE, atol=TOLERANCE)
        except AssertionError:
            yield f"column {name!r} differs"


def _archives(theirs: Path, ours: Path) -> Iterator[str]:
    with zipfile.ZipFile(theirs) as other, zipfile.ZipFile(ours) as own:
        names = {*other.namelist(), *own.namelist()}
        for name in sorted(names):
            if not ({name} <= {*other.namelist()} and {name} <= {*own.namelist()}):
                yield f"{name} is only in one of the two"
            elif name.endswith(".json"):
                yield from _values(json.loads(other.read(name)), json.loads(own.read(name)), name)
            elif other.read(name) != own.read(name):
                yield f"{name} differs"
