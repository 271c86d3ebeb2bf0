"""A table of numbers, texts, dates and missing values, from which a small model learns in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def write_table(path: Path, rows: int = 400) -> None:
    """Write a CSV file with three targets: `value` (regression), `grade` (multiclass), `top` (binary)."""
    rng = np.random.default_rng(0)
    size, colour = rng.normal(size=rows), rng.choice(["red", "green", "blue"], rows)
    since = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 7 * 24, rows), unit="h")
    value = size + (colour == "red") + np.sin(2 * np.pi * since.hour / 24) + rng.normal(size=rows) / 10
    frame = pd.DataFrame(
        {"size": size, "colour": colour, "since": since.strftime("%Y-%m-%dT%H:%M:%SZ"), "value": value}
    )
    frame["grade"] = pd.cut(frame["value"], [-9, 0.5, 1.5, 9], labels=["low", "middle", "high"])
    frame["top"] = frame["value"] > 1
    frame.loc[::40, ["size", "colour"]] = None
    frame.to_csv(path, index=False)
