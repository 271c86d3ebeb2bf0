"""Stage `prepare`: read the table, drop rows without a target, add derived features, split, describe the schema."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import derived, schema, split, table

from .features import DERIVED
from .settings import Settings


def prepare(data: Data) -> tuple[dict[str, pd.DataFrame], dict[str, object]]:
    """Return the splits by name and the schema. Raises ProjectError naming the setting or column at fault."""
    frame = table.read(data)
    raw = len(frame)
    frame.insert(0, "row", range(raw))
    frame = frame[frame[data.target].notna()].reset_index(drop=True)
    if frame.empty:
        raise ProjectError(f"data.target {data.target!r} is missing in every row of {data.path}")
    _check_special(frame, data)
    frame = derived.add(frame, DERIVED, data) if DERIVED else frame
    frame["split"] = split.assign(frame, data, frame["row"].searchsorted(appended_at(data)).tolist())
    splits = {name: frame[frame["split"] == name].drop(columns="split") for name in ("train", "val", "test")}
    counts = {"raw": raw, "dropped_missing_target": raw - len(frame)} | {
        name: len(rows) for name, rows in splits.items()
    }
    return splits, schema.describe(splits["train"], counts, data, DERIVED)


def appended_at(data: Data) -> list[int]:
    """Return the rows of the table at which `make retrain` has appended some; none where the table is another."""
    if not artifacts.APPENDED.exists():
        return []
    appended = artifacts.read_json(artifacts.APPENDED, "git restore")
    return list(appended["parts"]) if appended["table"] == artifacts.digest(Path(data.path), "md5") else []


def _check_special(frame: pd.DataFrame, data: Data) -> None:
    if data.task == "regression" and not pd.api.types.is_float_dtype(frame[data.target]):
        raise ProjectError(f"data.target {data.target!r} is not a number in every row, which task 'regression' needs")
    if data.timestamp is None:
        return
    if not pd.api.types.is_datetime64_any_dtype(frame[data.timestamp]):
        raise ProjectError(f"data.timestamp {data.timestamp!r} is not an ISO 8601 date or time in every row")
    if frame[data.timestamp].isna().any():
        rows = frame.loc[frame[data.timestamp].isna(), "row"].tolist()
        raise ProjectError(
            f"data.timestamp {data.timestamp!r} is missing in {len(rows)} rows, the first is row {rows[0]}"
        )


def main() -> None:
    """Write the splits and the schema, and say what became of the rows."""
    data = Settings.load().data
    splits, described = prepare(data)
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        with artifacts.replacing(path) as temporary:
            splits[path.stem].to_parquet(temporary, index=False)
    artifacts.write_json(artifacts.SCHEMA, described)
    print(", ".join(f"{name} {count}" for name, count in described["rows"].items()))  # type: ignore[attr-defined]


if __name__ == "__main__":
    artifacts.run(main)
