"""Evidence of the tests of monitoring: Monitor 1 to 7."""

from __future__ import annotations

from pathlib import Path

import yaml

from gitops.core.artifacts import ProjectError
from gitops.debt.evidence_data import tested
from gitops.debt.evidence_infrastructure import alerts
from gitops.debt.project import Project, Seen
from gitops.integrations import git

DEPENDABOT, BOT = Path(".github/dependabot.yaml"), "dependabot[bot]"

#: The monitor's checks by which requests are held to what training has seen.
INVARIANTS = {"missing values", "unseen categories", "out of range", "refused requests"}


def dependencies(project: Project) -> Seen:
    """Monitor 1: Dependabot has proposed newer packages; by hand, the locks were written anew."""
    changed = git.run("log", "--format=%an", "HEAD", "--", "requirements").splitlines()
    locks = f"commits that changed the locks: {len(changed)}"
    by_hand = 0.5 if len(changed) > 1 else 0.0
    told = yaml.safe_load(DEPENDABOT.read_text(encoding="utf-8")) if DEPENDABOT.exists() else None
    if not told or "uv" not in {one["package-ecosystem"] for one in told["updates"]}:
        return Seen(by_hand, f"{locks}; Dependabot does not look at them")
    if BOT in git.run("log", "--format=%an", "HEAD").splitlines():
        return Seen(1, "Dependabot's commits are in the history")
    try:
        pulls = project.ask("pulls", state="all", per_page=100)
    except ProjectError:
        return Seen(by_hand, f"{locks}; whether Dependabot proposes anything is not known", known=False)
    seen = any((one.get("user") or {}).get("login") == BOT for one in pulls)
    return Seen(1 if seen else by_hand, f"{locks}; pull requests of Dependabot: {'yes' if seen else 'none'}")


def invariants(project: Project) -> Seen:
    """Monitor 2: requests were compared with what the schema and training have."""
    return _checked(project, INVARIANTS)


def skew(project: Project) -> Seen:
    """Monitor 3: the distribution of requests was compared with that of the test rows."""
    return _checked(project, {"feature drift"})


def stale(project: Project) -> Seen:
    """Monitor 4: an alert on the age of production's release."""
    return alerts(project, "ModelStale")


def stable(project: Project) -> Seen:
    """Monitor 5: the test that extreme columns stay finite."""
    return tested(project, ("model", "test_a_column_of_one_value_or_of_none_is_finite"))


def performance(project: Project) -> Seen:
    """Monitor 6: an alert on slow answers."""
    return alerts(project, "ModelSlow")


def quality(project: Project) -> Seen:
    """Monitor 7: labelled requests were evaluated."""
    found = (project.monitored or {}).get("performance")
    if not found or found["passed"] is None:
        return Seen(0, str(found["reason"]) if found else "no labelled requests were evaluated")
    return Seen(1, str(found["reason"]))


def _checked(project: Project, names: set[str]) -> Seen:
    """Return how many of the monitor's newest checks have these names."""
    result = project.monitored
    if result is None:
        return Seen(0, "no result of the monitor")
    count = sum(check["check"] in names for check in result["checks"])
    return Seen(float(bool(count)), f"{count} checks of {result['rows']} requests")
