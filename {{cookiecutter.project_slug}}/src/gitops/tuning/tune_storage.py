"""Where tuning keeps its trials: `TUNE_STORAGE`, or `sqlite:///tune.db` in the repository.

Workers on any number of machines share them through a PostgreSQL database; one worker's death loses no trial.
"""

from __future__ import annotations

import os
import random
import time
import warnings

import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

from gitops.core.artifacts import ProjectError

DEFAULT = "sqlite:///tune.db"

#: Seconds between a worker's signs of life, and after which a trial without one is begun again by another worker.
HEARTBEAT, GRACE = 10, 60

#: How often a trial is begun again whose worker was killed: one that needs too much memory kills each.
RETRIES = 2


def connect() -> RDBStorage:
    """Return the storage that TUNE_STORAGE names, with its tables. Raises ProjectError, which holds no password."""
    address = os.environ.get("TUNE_STORAGE") or DEFAULT
    try:
        url = sqlalchemy.make_url(address)
    except sqlalchemy.exc.ArgumentError:
        raise ProjectError("TUNE_STORAGE is no address such as postgresql://USER:PASSWORD@HOST/DATABASE") from None
    if url.drivername == "postgresql":  # SQLAlchemy would take psycopg 3, which is not in the lock
        url = url.set(drivername="postgresql+psycopg2")
    last: Exception
    for attempt in range(4):
        time.sleep(attempt * random.uniform(0.5, 1.5))
        try:
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                return RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs={"pool_pre_ping": True},  # long trainings outlive a connection
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
                )
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            last = error  # such as when another worker makes the tables at the same moment
    reason = str(getattr(last, "orig", None) or last).strip()
    raise ProjectError(f"TUNE_STORAGE {url.render_as_string(hide_password=True)} cannot be used: {reason}") from None
