"""A small table, prepared, and settings under which its model trains in a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from breast_cancer import prepare
from defaults import complete_file
from gitops.core import artifacts

PARAMS = complete_file("""\
# Settings of a test: each comment stays.
data:
  path: raw.csv
  target: top
  task: binary

model:
  width: 8                    # units
  depth: 1
  dropout: 0.1
  ensemble_size: 2
  bins: 2                     # of each number

train:
  epochs: 4
  patience: 1  # epochs
  batch_size: 64
  learning_rate: 0.002
  device: cpu

gate:
  primary_metric: roc_auc
  thresholds: {roc_auc: 0.5}

package: {model_name: top}

tune:
  space:
    model.width: {low: 4, high: 32, log: true}
    model.dropout: {low: 0.0, high: 0.5}
    train.learning_rate: {low: 0.00001, high: 0.02, log: true}
""")


def write_table(path: Path, rows: int = 400) -> None:
    """Write a number, a category and a date, on all of which the class depends."""
    rng = np.random.default_rng(0)
    size, colour = rng.normal(size=rows), rng.choice(["red", "green", "blue"], rows)
    since = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 7 * 24, rows), unit="h")
    value = size + (colour == "red") + np.sin(2 * np.pi * since.hour / 24) + rng.normal(size=rows) / 10
    frame = pd.DataFrame({"size": size, "colour": colour, "since": since.strftime("%Y-%m-%dT%H:%M:%SZ")})
    frame["top"] = value > 1
    frame.loc[::40, ["size", "colour"]] = None
    frame.to_csv(path, index=False)


def make_room() -> None:
    """Prepare the table in the working directory as the stage does, and take the test split away."""
    artifacts.PARAMS.write_text(PARAMS)
    write_table(Path("raw.csv"))
    prepare.main()
    artifacts.TEST.unlink()
