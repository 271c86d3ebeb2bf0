"""Evidence of the tests of features and data: Data 1 to 7."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from gitops.core import artifacts
from gitops.debt.project import Project, Seen
from gitops.integrations import git

DATA, SYSTEM = Path("docs/data-understanding.md"), Path("docs/system-design.md")
ERASED = Path("reports/erase.md")

COST = "What does a column cost, to get and to keep, and is it worth that?"
KNOWN = "Is each column known at the moment when the model is asked?"
PRIVACY = "Data security and privacy"

#: The check that refuses a column which gives the target away.
LEAK = "Feature Label Correlation"


def schema(project: Project) -> Seen:
    """Data 1: the splits fit the schema that was derived from them."""
    derived = project.result(artifacts.SCHEMA, "prepare")
    checked = project.result(artifacts.DATA_VERDICT, "validate_data")
    if not derived or not checked:
        return Seen(0, "no schema, or no validation of this data")
    if not checked["passed"]:
        return Seen(0, "the data validation has failed")
    return Seen(1, f"{len(derived['features'])} columns in the schema, {len(checked['conditions'])} checks passed")


def beneficial(project: Project) -> Seen:
    """Data 2: each feature's importance is measured, and none is without."""
    explained = project.result(artifacts.EXPLANATIONS, "evaluate")
    if not explained or not explained["features"]:
        return Seen(0, "no importance of the features of this model")
    features = explained["features"]
    useless = sum(one["importance"] <= 0 for one in features)
    measured = f"{len(features)} of {explained['of_columns']} features measured, {useless} of them add nothing"
    return Seen(0.5 if useless or len(features) < explained["of_columns"] else 1, measured)


def cost(project: Project) -> Seen:
    """Data 3: somebody has said what a column costs. Nothing here measures it, so it is half a point at most."""
    return Seen(0.5, f"{DATA} says it") if project.answered(DATA, COST) else Seen(0, f"{DATA} does not say it")


def requirements(project: Project) -> Seen:
    """Data 4: which columns may be used is written down, and a machine refuses those that give the target away."""
    checked = project.result(artifacts.DATA_VERDICT, "validate_data") or {"conditions": []}
    enforced = any(one["check"] == LEAK and one["status"] == "passed" for one in checked["conditions"])
    documented = project.answered(DATA, KNOWN)
    text = f"{'' if documented else 'not '}written down; the check against leaks has {'' if enforced else 'not '}passed"
    return Seen((enforced + documented) / 2, text)


def privacy(project: Project) -> Seen:
    """Data 5: the questions about privacy are answered, and an erasure has been carried out."""
    left = project.open_questions(SYSTEM, PRIVACY)
    if left is None or left:
        return Seen(0, f"{len(left or [])} open questions about privacy in {SYSTEM}" if left else f"none in {SYSTEM}")
    return Seen(1, f"{ERASED}: carried out") if ERASED.exists() else Seen(0.5, "no erasure was tried here")


def quickly(project: Project) -> Seen:
    """Data 6: a release had columns that the one before had not; the time from its commit to the release."""
    for before, after in reversed(list(zip(log := project.releases(), log[1:], strict=False))):
        added = after.record.columns.keys() - before.record.columns.keys()
        if added and git.exists(after.record.commit):
            begun = datetime.fromisoformat(git.run("show", "-s", "--format=%cI", after.record.commit))
            hours = (datetime.fromisoformat(after.first.time) - begun).total_seconds() / 3600
            return Seen(1, f"{len(added)} new columns, released {hours:.1f} hours after their commit")
    return Seen(0, "no release has had a new column")


def code_is_tested(project: Project) -> Seen:
    """Data 7: the tests of what makes the features."""
    return tested(project, ("features", ""), ("prepare", ""))


def tested(project: Project, *wanted: tuple[str, str]) -> Seen:
    """Return whether all of these tests (module, name) have passed: here, or else in CI, which runs all."""
    if missing := [f"tests/test_{module}.py" for module, name in wanted if not project.defines(module, name)]:
        return Seen(0, f"no such test in {', '.join(missing)}")
    counts = [project.passed(module, name) for module, name in wanted]
    if None in counts:
        ran = project.repeated("ci.yaml", "test")
        passed = ", passed in CI" if ran.value else ""
        return Seen(ran.value, f"not run here since the code has changed{passed}", ran.known)
    if not all(counts):
        return Seen(0, "a test has failed")
    return Seen(1, f"tests passed: {sum(filter(None, counts))}")
