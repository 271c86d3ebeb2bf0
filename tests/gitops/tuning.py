"""A small table, prepared, and settings under which its model trains in a fraction of a second."""

from __future__ import annotations

from pathlib import Path

from breast_cancer import prepare
from gitops.core import artifacts
from test_training import write_table

PARAMS = """\
# Settings of a test: each comment stays.
data:
  path: raw.csv
  target: top
  task: binary
  drop: [value, grade]

model:
  width: 8                    # units
  depth: 1
  dropout: 0.1
  members: 2
  bins: 2                     # of each number

train:
  epochs: 4
  patience: 1  # epochs
  batch_size: 64
  learning_rate: 0.002
  device: cpu

gate:
  metric: roc_auc
  thresholds: {roc_auc: 0.5}

package: {model_name: top}

tune:
  space:
    model.width: {low: 4, high: 32, log: true}
    model.dropout: {low: 0.0, high: 0.5}
    train.learning_rate: {low: 0.00001, high: 0.02, log: true}
"""


def make_room() -> None:
    """Prepare the table in the working directory as the stage does, and take the test split away."""
    artifacts.PARAMS.write_text(PARAMS)
    write_table(Path("raw.csv"))
    prepare.main()
    artifacts.TEST.unlink()
