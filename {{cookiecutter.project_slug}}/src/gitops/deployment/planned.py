"""The plan of a release, build/release/plan.json: `make plan` decides, `make archive` and `make deploy` carry it out.

It holds what release.json will hold, and the model card. Days may lie between it and the release, which people can
review, and another machine may go on from here; so it is read as data, and holds for the commit that it was made from
alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from gitops.core.artifacts import PACKAGE, ProjectError
from gitops.core.console import one_line
from gitops.integrations import git
from gitops.releases.record import CARD_LIMIT, Candidate, GateResult, Part

#: What a workflow's later jobs get, as an artifact of its run.
FOLDER = Path("build/release")
PATH = FOLDER / "plan.json"

#: The archive itself, where the DVC remote lies in the repository, which another machine does not see.
ARCHIVES = FOLDER / PACKAGE


class Plan(Part):
    """A candidate that was verified, and that the gate has accepted."""

    candidate: Candidate  # its image: that of the option, else the overlay's name with the model's version
    gate: GateResult  # gate.release: the release in production that it compared with
    card: Annotated[str, Field(min_length=1, max_length=CARD_LIMIT)]  # the contents of model-card.md

    @model_validator(mode="after")
    def _may_be_released(self) -> Self:
        if not self.gate.accepted or self.candidate.training is None:
            raise ValueError("a candidate that was verified and accepted is needed")
        path = Path(self.candidate.package.path)
        if path.parent != PACKAGE or path.suffix != ".mar":
            raise ValueError(f"the archive is {path}, and {PACKAGE}/NAME.mar is needed")
        return self


def read() -> Plan:
    """Return the plan. Raises ProjectError where there is none, or it is not of the commit that is checked out."""
    try:
        plan = Plan.model_validate_json(PATH.read_bytes())
    except FileNotFoundError:
        raise ProjectError(
            f"{PATH} is missing: run `make plan`, which writes it if there is something to release"
        ) from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "it"
        raise ProjectError(
            f"{PATH} is no plan ({where}: {one_line(problem['msg'], 200)}): run `make plan` again"
        ) from None
    here = git.run("rev-parse", "HEAD")
    if plan.candidate.commit != here:
        planned = one_line(plan.candidate.commit, 12)
        raise ProjectError(f"{PATH} is of commit {planned}, and {here[:12]} is checked out: run `make plan` again")
    return plan
