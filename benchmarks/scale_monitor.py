"""`make monitor` on a large request log for scale.py: `python scale_monitor.py write|run FOLDER DAYS REQUESTS_A_DAY`.

Run in a project, which needs no release: this stands for one whose model answered the requests of
tests/gitops/request_logs.py. `write` puts a log in parquet, 100,000 labels, test rows and predictions into FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/gitops"))

import request_logs
from gitops.core import artifacts, params
from gitops.integrations import dvc
from gitops.monitoring import monitor
from gitops.releases import release
from gitops.releases.record import Deployed, Release

#: Rows of the release's test split, and labels of requests.
ROWS = 100_000


def write(folder: Path, days: int, a_day: int) -> None:
    """Write what a monitor reads."""
    request_logs.write(folder / "log", days, a_day)
    dice = np.random.default_rng(7)
    hours = dice.integers(0, 24 * days, ROWS)
    ids = [f"r-{hour}-{number}" for hour, number in zip(hours, dice.integers(0, a_day // 24, ROWS), strict=True)]
    (folder / "labels").mkdir()
    labels = pd.DataFrame({"request_id": ids, "label": np.where(dice.random(ROWS) > 0.5, "yes", "no")})
    labels.drop_duplicates("request_id").to_parquet(folder / "labels/labels.parquet", index=False)
    test = pd.DataFrame({artifacts.ROW: np.arange(ROWS), artifacts.GROUP: np.arange(ROWS)})
    test = test.join(pd.DataFrame(dice.normal(size=(ROWS, len(request_logs.NUMBERS))), columns=request_logs.NUMBERS))
    for name, count in request_logs.CATEGORIES.items():
        test[name] = [f"{name}-{index}" for index in dice.integers(0, count, ROWS)]
    score = dice.random(ROWS)
    test["outcome"] = np.where(dice.random(ROWS) > 0.5, "yes", "no")
    test.to_parquet(folder / "test.parquet", index=False)
    predictions = pd.DataFrame({"row": test[artifacts.ROW], "split": "test", "target": test["outcome"]})
    predictions = predictions.assign(prediction=np.where(score > 0.5, "yes", "no"), p_no=1 - score, p_yes=score)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    with zipfile.ZipFile(folder / "model.mar", "w") as archive:
        archive.writestr("schema.json", json.dumps(request_logs.schema()))


def run(folder: Path) -> None:
    """Run the monitor."""
    os.environ |= {"REQUEST_LOG": str(folder / "log"), "LABELS": str(folder / "labels")}
    with (
        patch.object(release, "production", lambda: Deployed("e" * 40, record())),
        patch.object(dvc, "fetch", lambda name: folder / name),
    ):
        begin = datetime.now(UTC)
        monitor.main()
        print(f"in {(datetime.now(UTC) - begin).total_seconds():.0f} s")


def record() -> Release:
    """Return a release whose files are named where md5s stand else."""
    version = request_logs.VERSION
    contents: dict[str, Any] = {
        "commit": "c" * 40,
        "model": {"name": "model", "version": version, "sha256": version, "md5": "m"},
        "package": {"path": "package/model.mar", "md5": "model.mar"},
        "predictions": {"path": artifacts.PREDICTIONS.as_posix(), "md5": "predictions.parquet"},
        "test_md5": "test.parquet",
        "data": {"path": "data/raw.csv", "md5": "d"},
        "params": params.load().model_dump(mode="json"),
        "metrics": {"roc_auc": {"value": 0.5, "low": 0.49, "high": 0.51}},
        "mlflow_run_id": None,
        "image": "model:a",
        "gate": {"accepted": True, "mode": "absolute", "reason": "Accepted."},
        "previous": None,
    }
    return Release.model_validate(contents)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        run(Path(sys.argv[2]))
