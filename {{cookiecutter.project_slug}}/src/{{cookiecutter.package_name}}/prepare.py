"""Stage `prepare`: read the table, add derived features, split, describe what the model will see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gitops.core import artifacts
from gitops.core.console import echo
from gitops.core.sections import Data
from gitops.tabular import numbers, parts, row_groups, schema, split, streamed
from gitops.tabular.columns import Derived
from gitops.tabular.rows import Rows
from gitops.tabular.streamed import Streamed

from .features import DERIVED
from .settings import Settings


def read(data: Data) -> pd.DataFrame | Streamed:
    """Return the table, each column with a dtype: a frame, or, of parquet too large for one, parts that are read anew.

    Raises ProjectError naming the file, setting or column at fault.
    """
    return streamed.opened(data)


def prepare(
    found: pd.DataFrame | Streamed, data: Data, features: Mapping[str, Derived], appended: Sequence[int] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the splits by name, with the derived `features`, and the schema. The splits of a frame are frames.

    `appended` are the rows at which the table has grown: rows that were there keep their split. Raises ProjectError
    naming the setting or column at fault.
    """
    rows = Rows(found, features, data)
    codes, groups = split.assign(rows.keys, data, rows.starts(appended))
    splits = rows.splits(codes, groups)
    return splits, schema.describe(streamed.held(splits["train"]), rows.counts(codes), data, features)


def appended_at(data: Data) -> list[int]:
    """Return the rows of the table at which `make retrain` has appended some; none where the table is another."""
    return parts.starts(data)


def main() -> None:
    """Write the splits, the schema and the numbers' statistics, and print how many rows each split has."""
    data = Settings.load().data
    splits, described = prepare(read(data), data, DERIVED, appended_at(data))
    numbers.write(artifacts.NUMBERS, numbers.of_split(streamed.held(splits["train"]), described))
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        row_groups.write(path, splits[path.stem])
    artifacts.write_json(artifacts.SCHEMA, described)
    counts = ((name, count) for name, count in described["rows"].items() if count)
    echo(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts))


if __name__ == "__main__":
    artifacts.run(main)
