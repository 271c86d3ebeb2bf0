"""What starts a retraining and what blocks it: the reason, the monitor's result, open branches, the cooldown."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.rendering.markdown import defang

#: Characters of a reason, which anybody who can start a retraining may write.
REASON = 200

#: Checks of the monitor that the report shows.
CHECKS = 100


def reason(text: str) -> str:
    """Return the reason as one line that has no effect in Git or on GitHub. Raises ProjectError where it is empty."""
    line = one_line(text, REASON)
    if not line:
        raise ProjectError('REASON is not set: say why, as in `make retrain REASON="labels of the spring"`')
    return line


def one_line(text: str, limit: int) -> str:
    """Return text for a commit message or a title: shortened, on one line, and without effect on GitHub."""
    return defang(" ".join(text.split()))[:limit].strip()


def monitor_result() -> dict[str, Any] | None:
    """Return the monitor's result that started this run (MONITOR, JSON), or None.

    Its keys are `status`, `from`, `to`, `rows` and `checks`. Raises ProjectError for any other text.
    """
    text = os.environ.get("MONITOR", "").strip()
    if text in ("", "null"):
        return None
    try:
        result = json.loads(text)
        checks = [
            {key: check.get(key) for key in ("check", "column", "value", "limit", "passed")}
            for check in result["checks"]
        ]
        return {key: result.get(key) for key in ("status", "from", "to", "rows")} | {"checks": checks[:CHECKS]}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ProjectError("MONITOR is not the JSON of reports/monitor.json") from None


def blocked(settings: Params, unmerged: Sequence[str], last: datetime | None) -> str | None:
    """Return why a retraining may not run now, or None: a branch is unmerged, or the last retraining is too recent."""
    if unmerged:
        return f"{', '.join(unmerged)} is open: merge or close it first, or FORCE=1"
    hours = settings.retrain.cooldown_hours
    if last and datetime.now(UTC) < last + timedelta(hours=hours):
        ago = f"less than retrain.cooldown_hours ({hours:g}) ago"
        return f"the last one was at {last:%Y-%m-%d %H:%M} UTC, {ago}; or FORCE=1"
    return None
