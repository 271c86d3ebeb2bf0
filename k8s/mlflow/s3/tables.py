"""Make MLflow's tables, by one pod at a time: two that start together on an empty database would both try, and one end.

Tables that are there stay as they are: those of an older version are upgraded by a person (README.md). While the
database does not answer, it is asked again for about a hundred seconds.
"""

from __future__ import annotations

import os

import sqlalchemy
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore as Accounts
from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

#: Any number that nothing else locks in this database.
LOCK = 317

#: What `mlflow server` gives experiments if it passes artifacts on, as it does here.
ARTIFACTS = "mlflow-artifacts:/"

if __name__ == "__main__":
    address = os.environ["MLFLOW_BACKEND_STORE_URI"]
    with create_sqlalchemy_engine_with_retry(address).connect() as connection:  # which holds the lock
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(LOCK)))
        Runs(address, ARTIFACTS)
        Accounts().init_db(address)
    print("the tables are there")
