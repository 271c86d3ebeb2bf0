"""Stage `prepare`: read the table, add derived features, split, describe what the model will see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.console import echo
from gitops.core.sections import Data
from gitops.tabular import derived, parts, schema, split, table
from gitops.tabular.columns import Derived

from .features import DERIVED
from .settings import Settings


def read(data: Data) -> pd.DataFrame:
    """Return the table, each column with a dtype. Raises ProjectError naming the file, setting or column at fault."""
    return table.read(data)


def prepare(
    frame: pd.DataFrame, data: Data, features: Mapping[str, Derived], appended: Sequence[int] = ()
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the splits by name, with the derived `features`, and the schema.

    `appended` are the rows at which the table has grown: rows that were there keep their split. Raises ProjectError
    naming the setting or column at fault.
    """
    raw = len(frame)
    frame = frame.assign(**{ROW: range(raw)})
    frame = frame[frame[data.target].notna()].reset_index(drop=True)
    if frame.empty:
        raise ProjectError(f"data.target {data.target!r} is missing in every row of {data.path}")
    _check_special(frame, data)
    frame = derived.add(frame, features, data)
    names, groups = split.assign(frame, data, frame[ROW].searchsorted([*appended]).tolist())
    frame.insert(1, GROUP, groups)
    splits = {name: frame[names == name] for name in ("train", "val", "test")}
    counts = {"raw": raw, "dropped_missing_target": raw - len(frame)}
    counts |= {name: int((names == name).sum()) for name in (*split.LEFT_OUT, *splits)}
    return splits, schema.describe(splits["train"], counts, data, features)


def appended_at(data: Data) -> list[int]:
    """Return the rows of the table at which `make retrain` has appended some; none where the table is another."""
    return parts.starts(data)


def _check_special(frame: pd.DataFrame, data: Data) -> None:
    if data.task == "regression" and not pd.api.types.is_float_dtype(frame[data.target]):
        raise ProjectError(f"data.target {data.target!r} is not a number in every row, which task 'regression' needs")
    if data.timestamp is None:
        return
    if not pd.api.types.is_datetime64_any_dtype(frame[data.timestamp]):
        raise ProjectError(f"data.timestamp {data.timestamp!r} is not an ISO 8601 date or time in every row")
    if frame[data.timestamp].isna().any():
        rows = frame.loc[frame[data.timestamp].isna(), ROW].tolist()
        raise ProjectError(
            f"data.timestamp {data.timestamp!r} is missing in {len(rows)} rows, the first is row {rows[0]}"
        )


def main() -> None:
    """Write the splits and the schema, and print how many rows each has."""
    data = Settings.load().data
    splits, described = prepare(read(data), data, DERIVED, appended_at(data))
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        artifacts.write_parquet(path, splits[path.stem])
    artifacts.write_json(artifacts.SCHEMA, described)
    counts = ((name, count) for name, count in described["rows"].items() if count)
    echo(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts))


if __name__ == "__main__":
    artifacts.run(main)
