"""Whether staging's release has been live for long enough to be proposed for production.

Argo CD's notifications say on GitHub how a release fares, as statuses of a deployment of its commit of main (the
platform's k8s/argocd/notifications.yaml): success is synced and healthy, failure degraded, error not applied. Those
count that are younger than the release's commit on env/staging: an older one is of an earlier time on staging, before a
rollback to it.
"""

from __future__ import annotations

import datetime

from gitops.core.sections import Promotion
from gitops.integrations import git
from gitops.integrations.github import GitHub
from gitops.integrations.kustomize import STAGING
from gitops.releases.record import Deployed

#: By how much the clock of the machine that released may be fast.
SKEW = datetime.timedelta(minutes=5)

#: Deployments of GitHub Actions' own: that a job with the environment `staging` has ended says nothing of the cluster.
ACTIONS = "github-actions[bot]"
REPORTED = {"failure": "is degraded", "error": "was not applied"}
NOW = "the workflow Promote with the input `now`, or NOW=1, does not wait"


def waiting(client: GitHub, staged: Deployed) -> str | None:
    """Return what the promotion of staging's release waits for, and how not to; None where nothing is left to wait for.

    Raises ProjectError where GitHub cannot be asked.
    """
    hours = Promotion.model_validate(staged.record.params.get("promotion", {})).soak_hours
    statuses = _statuses(client, staged)
    title = f"{staged.record.title} on {STAGING}"
    if not statuses:
        return (
            f"{title} has not been reported as live. Argo CD's notifications do that (docs/operate.md, 'Is it live?');"
            f" where the cluster has none, nothing is promoted by itself: {NOW}."
        )
    newest = statuses[-1][1]
    if newest in REPORTED:
        return f"{title} {REPORTED[newest]}, Argo CD reports: a newer release or a rollback ends that; {NOW}."
    if newest != "success":
        return f"{title} was last reported as {newest}, not as live; {NOW}."
    since = _since(statuses)
    left = since + datetime.timedelta(hours=hours) - datetime.datetime.now(datetime.UTC)
    if left <= datetime.timedelta(0):
        return None
    return (
        f"{title} is live since {since:%Y-%m-%d %H:%M} UTC, {left.total_seconds() / 60:.0f} minutes short of "
        f"promotion.soak_hours ({hours:g}); {NOW}."
    )


def _statuses(client: GitHub, staged: Deployed) -> list[tuple[datetime.datetime, str]]:
    """Return when what was reported of the release, the newest last, since it came to staging."""
    released = datetime.datetime.fromisoformat(git.run("log", "-1", "--format=%cI", staged.commit))
    found = []
    # Of the branch's own commit where its message does not tell the commit of main, as after `git revert` by hand.
    for commit in (staged.record.commit, staged.commit):
        for deployment in client.every("deployments", sha=commit, environment=STAGING):
            if deployment["creator"]["login"] != ACTIONS:
                found += client.every(f"deployments/{deployment['id']}/statuses")
    times = [(datetime.datetime.fromisoformat(status["created_at"]), status["id"], status["state"]) for status in found]
    return [(time, state) for time, _, state in sorted(times) if time >= released - SKEW]


def _since(statuses: list[tuple[datetime.datetime, str]]) -> datetime.datetime:
    """Return since when the reports are of success without a break."""
    since = statuses[-1][0]
    for time, state in reversed(statuses):
        if state != "success":
            break
        since = time
    return since
