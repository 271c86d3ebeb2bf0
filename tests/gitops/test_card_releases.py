"""The model card of a release: what is planned, what lies beside the record, and what a rollback brings back.

test_promote.py has that of a promotion, test_registry.py that of MLflow's version.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from cards import metadata
from gitops.core import params
from gitops.deployment import planned
from gitops.design import model_card
from gitops.releases import release
from gitops.releases.record import CARD, CARD_LIMIT
from releases import TRAINED, Job, isolate, refused
from test_rollback import revert_by_hand

QUESTION = "## Use\n\n**What is it for?**\n\n"


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


def test_a_release_has_the_card_that_was_planned(job: Job) -> None:
    main = job.merge("Change")
    job.train("model A")
    job.gate()
    plan = job.plan()
    assert plan
    released = job.card(job.carry_out())
    assert released == plan.card == (job.path / "reports/model-card.md").read_text()
    assert metadata(released)["model-index"][0]["name"] == "toy"
    record = job.production().record
    for said in (main, record.model.sha256, "d" * 32, "run-1", "1" * 64, "**0.9** (0.8 to 1)", "**0.25** on"):
        assert said in released
    assert record.image not in released, "it is not built yet when the card is written"


def test_the_manifests_that_argo_cd_applies_hold_no_card(job: Job) -> None:
    commit = job.release("model A")
    assert all(name.endswith(".yaml") for name in job.manifests(commit))
    assert job.git("ls-tree", "--name-only", f"{commit}:{release.MANIFESTS}", CARD) == ""


def test_equal_inputs_are_no_second_release_and_an_equal_card(job: Job, other: Job) -> None:
    first = job.release("model A")
    assert job.deploy() is None
    other.git("pull", "--quiet", "origin", "main")
    other.train("model A")
    other.gate(release=None)
    with contextlib.chdir(other.path):
        written = model_card.write(params.load(), [], other.git("rev-parse", "HEAD"), TRAINED)
    assert written == job.card(first), "another machine writes the same"
    job.merge("Only documents")
    job.write("docs/model-card.md", f"{QUESTION}To show it.\n")
    job.merge("An answer")
    job.gate()
    assert job.plan() is None and job.releases() == 1


@pytest.mark.parametrize("take_back", [Job.rollback, revert_by_hand], ids=["make rollback", "git revert"])
def test_a_rollback_brings_the_earlier_card_back(job: Job, take_back: Callable[[Job], object]) -> None:
    first = job.release("model A")
    job.write("docs/model-card.md", f"{QUESTION}Something else.\n")
    second = job.release("model B")
    assert "Something else" in job.card(second) and job.card(second) != job.card(first)
    take_back(job)
    assert job.card(job.production().commit) == job.card(first)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * (CARD_LIMIT + 1), f"no plan .card: String should have at most {CARD_LIMIT} characters"),
        ("", "no plan .card: String should have at least 1 character"),
        (None, "no plan .card: "),
    ],
)
def test_a_plan_with_another_card_than_that_is_refused(job: Job, text: str | None, reason: str) -> None:
    job.merge("Change")
    job.train("model A")
    job.gate()
    assert job.plan()
    path = job.path / planned.PATH
    path.write_text(json.dumps(json.loads(path.read_text()) | {"card": text}))
    with refused(reason):
        job.carry_out()


def test_a_release_of_before_there_were_cards_comes_back_without_one(job: Job) -> None:
    bare = job.without_card(job.release("model A"))
    assert job.production().commit == bare
    with contextlib.chdir(job.path):
        assert release.card(bare) is None
    assert job.card(job.release("model B"))
    job.rollback()
    assert job.tree(job.production().commit) == job.tree(bare)
