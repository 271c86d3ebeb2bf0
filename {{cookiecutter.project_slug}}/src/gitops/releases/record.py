"""The release record, `release.json`: what runs in an environment, where it came from, and how to retrieve it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gitops.core.params import flatten
from gitops.core.value import EXPECTED_VALUE, Value, amounts

RECORD = "release.json"

#: The model card beside it, and how many characters it may have.
CARD, CARD_LIMIT = "model-card.md", 60_000


#: The badge beside it, for a README (docs/debt.md).
BADGE = "debt.svg"


class Part(BaseModel):
    """A part of the record. Unknown keys are ignored: a later version of the project may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class File(Part):
    """A file that DVC stores under its md5, or a folder, whose md5 ends in `.dir`."""

    path: str
    md5: str


class Model(Part):
    """The model file: its name in TorchServe, the version that responses carry, its digests."""

    name: str
    version: str
    sha256: str
    md5: str


class Training(Part):
    """Where the model was trained: taken over from a branch, which nobody can check, or on main."""

    trained_on: str  # "main" or "branch"
    inputs: str  # sha256 of what it was trained from (releases/trained.py)


class Best(Part):
    """The release that was the best when the gate ran, on the test rows of then; the candidate is not among them."""

    commit: str  # of env/production, the first that held it
    model_version: str
    value: float | None = None  # of the primary metric on those rows; None where it was not compared


class GateResult(Part):
    """The gate's decision."""

    accepted: bool
    mode: str
    reason: str
    release: str | None = None  # commit of env/production that it compared with; None where nothing was released
    best: Best | None = None  # None in records before this was recorded, and where nothing was compared


class Score(Part):
    """A metric on the test split with its 95 % interval."""

    value: float
    low: float
    high: float
    better: Literal["higher", "lower"] | None = None  # None in records before this was recorded


class Candidate(Part):
    """The model in the workspace: every key of release.json that does not depend on the previous release."""

    commit: str  # of main
    model: Model
    package: File
    predictions: File
    explanations: File | None = None  # evaluation/explanations.json; None in records before there was one
    debt_tests: dict[str, float] | None = None  # the same by test, as "Infra 7"
    test_md5: str
    data: File
    appended: File | None = None  # the rows that retrainings have appended to it; None where there are none beside it
    rows: dict[str, int] = {}  # in the table and in each split
    columns: dict[str, str] = {}  # features: name to dtype
    params: dict[str, Any]
    metrics: dict[str, Score]
    threshold: float | None = None  # binary: probability from which a row is positive; None: 0.5, or no binary task
    mlflow_run_id: str | None
    training: Training | None = None  # None in records before there was `make verify`
    image: str
    debt: dict[str, float] | None = None  # points of the ML Test Score by section; None in records before there was one

    @property
    def data_md5(self) -> str:
        """What names the contents of the table: its md5, and after a `+` that of the rows that are appended to it."""
        return "+".join(file.md5 for file in (self.data, self.appended) if file)

    def comparable(self, value: Value | Mapping[str, Any] | None) -> dict[str, Score]:
        """Return the metrics; the expected value is among them if it was computed with the amounts of `value`, the
        section of params.yaml, also as a record has it.
        """
        same = amounts(value) == amounts(self.params.get("value"))
        return {name: score for name, score in self.metrics.items() if same or name != EXPECTED_VALUE}

    @property
    def title(self) -> str:
        """The release's name in messages."""
        return f"{self.model.name} {self.model.version}"


class Release(Candidate):
    """The contents of release.json."""

    gate: GateResult
    previous: str | None  # commit of the environment's branch that held the previous release
    lifts: list[str] = []  # rollbacks, commits of the environment's branch, that a person lifted with REDEPLOY=1


@dataclass(frozen=True)
class Deployed:
    """The release that an environment's branch holds, and the branch's commit."""

    commit: str
    record: Release


def short(md5: str) -> str:
    """Return the first digits of a `Candidate.data_md5`."""
    return "+".join(part[:12] for part in md5.split("+"))


def changed_params(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the parameters that differ: dotted name to old and new value, None where one of the two lacks it."""
    before, after = flatten(old), flatten(new)
    names = [*after, *(name for name in before if name not in after)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
