"""What a model card is written from: the settings, the results of the run, where all of it came from, and what people
have answered.
"""

from __future__ import annotations

import re
import tomllib
import zipfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import digest, read_json
from gitops.core.failures import without_secrets
from gitops.core.params import Params
from gitops.design import documents, questions
from gitops.design.questions import Question
from gitops.releases import workspace
from gitops.releases.record import Training
from gitops.tabular import parts

PROJECT = Path("pyproject.toml")
PACKAGES = Path("requirements/pipeline.txt")

#: The largest description of a graph in a model file that is read for PyTorch's version, in bytes.
LARGEST = 64 << 20


@dataclass(frozen=True)
class Inputs:
    """What is known of a model. None or empty: missing, or no result of the pipeline on what is here."""

    settings: Params
    commit: str
    answers: list[Question] = field(default_factory=list)  # of docs/model-card.md
    business: list[Question] = field(default_factory=list)  # of docs/business-understanding.md
    data_licence: str | None = None  # what people have answered about it
    licence: str | None = None  # the project's, as pyproject.toml names it
    data: dict[str, str] = field(default_factory=dict)  # path to md5, of the table and of what is appended to it
    schema: dict[str, Any] | None = None
    periods: dict[str, tuple[str, str]] = field(default_factory=dict)  # split to its first and last month
    run: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    epochs: int | None = None
    pytorch: str | None = None  # the version that has exported the model
    packages: str | None = None  # sha256 of PACKAGES
    sha256: str | None = None  # of the model
    metrics: dict[str, Any] | None = None
    explanations: dict[str, Any] | None = None
    validations: dict[str, dict[str, Any]] = field(default_factory=dict)
    gate: dict[str, Any] | None = None
    training: Training | None = None


def gather(settings: Params, stale: Collection[str], commit: str, training: Training | None = None) -> Inputs:
    """Read what is up to date, where `stale` names the stages that are not, and validations that have failed.

    `training` is what `make verify` has found of this model. Raises ProjectError for a file that is broken.
    """
    known: dict[str, Any] = {"data": _data(settings), "licence": _licence(), "training": training}
    schema = None if "prepare" in stale else _read(artifacts.SCHEMA)
    known |= {"answers": _answers(documents.CARD, schema), "business": _answers(documents.BUSINESS, schema)}
    known["data_licence"] = _data_licence(schema)
    if schema:
        known |= {"schema": schema, "periods": _periods(settings.data.timestamp)}
    if not {"prepare", "train"} & {*stale}:
        known |= {"run": _read(artifacts.RUN), "decision": _read(artifacts.DECISION), "epochs": _epochs()}
        known |= _model()
    if not {"prepare", "train", "evaluate"} & {*stale}:
        known["metrics"] = _read(artifacts.METRICS)
        known["explanations"] = _read(artifacts.EXPLANATIONS)
        known["gate"] = _gate(known.get("sha256"))
    known["validations"] = _validations(stale)
    return Inputs(settings, commit, **known)


def table(settings: Params) -> str:
    """Return where the table lies, without what an address may hold of an account."""
    return "a database" if settings.data.query is not None else without_secrets(settings.data.path)


def _read(path: Path) -> Any:
    return read_json(path, "make pipeline") if path.exists() else None


def _data(settings: Params) -> dict[str, str]:
    with suppress(FileNotFoundError):
        md5s = workspace.data_md5(settings.data).split("+")
        return dict(zip((table(settings), parts.FOLDER.as_posix()), md5s, strict=False))
    return {}


def _licence() -> str | None:
    """Return the project's licence; None where pyproject.toml names none as an SPDX expression."""
    with suppress(OSError, tomllib.TOMLDecodeError):
        named = tomllib.loads(PROJECT.read_text(encoding="utf-8")).get("project", {}).get("license")
        return named if isinstance(named, str) else None
    return None


def _answers(path: Path, schema: dict[str, Any] | None) -> list[Question]:
    """Return the questions of a document; those that are answered for another table than this one are open."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return questions.parse(documents.renewed(path, text, {}, schema))


def _data_licence(schema: dict[str, Any] | None) -> str | None:
    """Return the first answer to a question about the data's licence."""
    asked = [*_answers(documents.DATA, schema), *_answers(documents.CARD, schema)]
    return next((one.answer for one in asked if one.answer and re.search(r"(?i)\blicen[cs]e", one.text)), None)


def _periods(timestamp: str | None) -> dict[str, tuple[str, str]]:
    """Return the first and last month of each split, from the statistics in its file: no row is read."""
    if timestamp is None:
        return {}
    import pyarrow.parquet as pq

    found = {}
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        metadata = pq.read_metadata(str(path)) if path.exists() else None
        if metadata is None or timestamp not in metadata.schema.names:
            continue
        column = metadata.schema.names.index(timestamp)
        groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
        ends = [(one.min, one.max) for one in groups if one is not None and one.has_min_max]
        if ends:
            first, last = min(low for low, _ in ends), max(high for _, high in ends)
            found[path.stem] = (str(first)[:7], str(last)[:7])
    return found


def _epochs() -> int | None:
    if not artifacts.LEARNING_CURVE.exists():
        return None
    return max(0, len(artifacts.LEARNING_CURVE.read_text(encoding="utf-8").splitlines()) - 1)


def _model() -> dict[str, Any]:
    """Return the digests of the model and of the packages it was made with, and PyTorch's version."""
    packages = digest(PACKAGES) if PACKAGES.exists() else None
    if not artifacts.MODEL.exists():
        return {"packages": packages}
    return {"packages": packages, "sha256": digest(artifacts.MODEL), "pytorch": _pytorch(artifacts.MODEL)}


def _pytorch(path: Path) -> str | None:
    """Return the version of PyTorch that wrote an exported program, as that says itself."""
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            if member.filename.endswith("models/model.json") and member.file_size <= LARGEST:
                version = re.search(rb'"torch_version": *"([\w.+-]{1,40})"', packed.read(member))
                return version[1].decode() if version else None
    return None


def _gate(sha256: str | None) -> dict[str, Any] | None:
    """Return the gate's result, if it is about this model."""
    found: dict[str, Any] | None = _read(artifacts.GATE)
    return found if found and found.get("model_sha256") == sha256 else None


def _validations(stale: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the results of the checks. A stage that failed stays stale, and its result counts."""
    found: dict[str, dict[str, Any]] = {}
    if "prepare" in stale:
        return found
    for name, path in (("data", artifacts.DATA_VERDICT), ("model", artifacts.MODEL_VERDICT)):
        before = () if name == "data" else ("train", "evaluate")
        result = None if {*before} & {*stale} else _read(path)
        if result and not (result["passed"] and path.stem in stale):
            found[name] = result
    return found
