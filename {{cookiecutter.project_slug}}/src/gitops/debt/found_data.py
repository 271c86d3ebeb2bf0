"""Data that no version names, and tables that learn from what the model itself has answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, PARAMS
from gitops.core.params import Params
from gitops.debt.finding import FEEDBACK, UNSTABLE, Finding, found, lines, unknown
from gitops.integrations import git
from gitops.tabular import parts

#: Rows with a label from which on it is no chance that labels never contradict the model.
ENOUGH = 100

#: Where labels of production's requests lie unless the variable LABELS says otherwise (docs/system-design.md).
LABELS = Path("labels")


def unversioned(settings: Params) -> Iterator[Finding]:
    """Yield the tables that DVC or Git do not version, and labels, which no commit names."""
    places = lines()
    if settings.feature_store is None:
        tables = [("data.path", settings.data.path)]
        if parts.elsewhere(settings.data) and (settings.data.query is None or "://" in settings.data.path):
            text = "data.path is an address or a pattern, which DVC does not track: a commit may read other rows later"
            yield found(UNSTABLE, text, PARAMS, places.get("data.path"))
            tables = []
    else:
        store = settings.feature_store
        tables = [("feature_store.labels", store.labels), ("feature_store.features", store.features)]
    for key, table in tables:
        if why := _unversioned(Path(table)):
            yield found(UNSTABLE, f"{key} is not versioned: {why}", PARAMS, places.get(key))
    if os.environ.get("LABELS") or LABELS.exists():
        text = (
            "The labels of production's requests (LABELS) are not versioned: of them a commit names only what a "
            f"retraining has appended ({APPENDED}); the monitor's verdicts cannot be computed again"
        )
        yield found(UNSTABLE, text)


def _unversioned(table: Path) -> str | None:
    pointer = table.with_name(f"{table.name}.dvc")
    if table.is_absolute():
        return "it is outside the repository; move it into data/ and `dvc add` it"
    if not pointer.exists():
        return f"{pointer} is missing; `dvc add {table}`, and commit it"
    if git.is_repository() and not git.run("ls-files", "--", pointer.as_posix()):
        return f"{pointer} is not in Git; commit it"
    return None


def feedback(settings: Params, schema: dict[str, Any] | None) -> Iterator[Finding]:
    """Yield how much of the table came as requests, and whether labels look like the model's own answers."""
    state = parts.state(settings.data)
    appended = len(state.get("requests", {})) + sum(state.get("used", {}).values())
    if appended:
        rows = schema["rows"]["raw"] if schema else 0
        share = f"{appended / rows:.1%} of the table's {rows} rows" if rows >= appended else f"{appended} rows"
        text = (
            f"{share} came as requests to the model. Where its answer decides who is asked about, or what is done, "
            "these rows are not a sample of the world: keep a part of the decisions free of the model"
        )
        yield found(FEEDBACK, text, APPENDED, 1)
    yield from _echoes()


def _echoes() -> Iterator[Finding]:
    """Yield a finding where the labels of the last monitored window are the model's answers themselves."""
    if not artifacts.MONITOR_LABELLED.exists():
        why = f"{artifacts.MONITOR_LABELLED} is missing; `make monitor` makes it"
        yield unknown(FEEDBACK, f"Whether labels are the model's own answers: {why}")
        return
    labelled = artifacts.read_parquet(artifacts.MONITOR_LABELLED)
    if len(labelled) < ENOUGH:
        text = f"Whether labels are the model's own answers: {len(labelled)} labelled rows, and {ENOUGH} are needed"
        yield unknown(FEEDBACK, text)
    elif (labelled["prediction"] == labelled["target"]).all():
        text = (
            f"All {len(labelled)} labels of the monitored window are what the model had answered: they may be its own "
            "predictions. A model that learns from these confirms itself"
        )
        yield found(FEEDBACK, text)
