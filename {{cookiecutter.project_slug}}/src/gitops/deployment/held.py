"""Refuse to release again what a rollback has taken back (gitops/releases/holds.py), unless a person says so."""

from __future__ import annotations

from gitops.core import actions
from gitops.core.artifacts import ProjectError
from gitops.core.console import annotate
from gitops.releases import holds
from gitops.releases.record import Candidate, Deployed
from gitops.rendering.markdown import plain


class Held(ProjectError):
    """A rollback has taken this back; the message says what to do."""


def check(
    candidate: Candidate, manifests: str, present: Deployed | None, environment: str, redeploy: bool
) -> list[str]:
    """Return the rollbacks that this release lifts, which are commits of the environment's branch; mostly none.

    `manifests` is the tree of the candidate's manifests, empty where it is not known yet. Raises Held, and says so on
    the run's page, where the candidate holds what was rolled back and `redeploy` is not set.
    """
    if present is None:
        return []
    found = holds.examine(environment, present.commit, candidate.commit, holds.digests(candidate, manifests)).refusals
    if found and not redeploy:
        reason = next(iter(found.values()))
        title = f"Not released to {environment}, which rolled it back"
        annotate("error", title, reason)
        actions.summarise(f"### {title}\n\n{plain(reason, 2000)}")
        raise Held(reason)
    return list(found)
