"""The feature store: Feast's entity, feature view and feature service, built from the project's tables and settings.

Each command builds Feast's registry in a temporary folder, from the description that join.py writes to
data/feature_view.json and that is packed with the model, so that serving and training use the same features. Only the
online store persists: SQLite, or the Redis in FEATURE_STORE_REDIS. https://docs.feast.dev

Runs in the environment `features`. Feast is imported late, because that takes seconds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.core.sections import FeatureStore as Section
from gitops.tabular import dtypes, load, table

if TYPE_CHECKING:
    from feast import FeatureStore

#: The column of the features' table with the time from which its row is valid.
TIME = "event_timestamp"

#: The name of the project's feature view.
VIEW = "features"

#: Missing values in the store: a number and a text that no table has, since infinite numbers are refused and texts
#: stripped. Null means that a column was never written, which Redis could not tell from a missing value.
MISSING_NUMBER, MISSING = float("inf"), " "

ONLINE = Path(".feast/online.db")

#: Timeouts of Redis in seconds: of the feature server, whose callers wait in turn, and of commands that write.
READ_TIMEOUT, WRITE_TIMEOUT = 1, 10


def read_features(settings: Params) -> pd.DataFrame:
    """Return the features' table, typed as in table.py and sorted by entity and time, whatever the order of its rows.

    Raises ProjectError where a row lacks the entity or time, or two rows have the same entity and time: which of them
    is valid would be undefined.
    """
    path = _section(settings).features
    frame = _read(path, "feature_store.features", settings, TIME)
    entity = str(settings.data.id)
    if len(repeated := frame.index[frame.duplicated([entity, TIME])]):
        raise ProjectError(
            f"{path} has {len(repeated)} rows that repeat another's {entity!r} and {TIME!r}, the first is row "
            f"{repeated[0]} (counted from 0 after the header): keep one row for each time"
        )
    if len(frame.columns) < 3:
        raise ProjectError(f"{path} has no column besides {entity!r} and {TIME!r}: there is no feature")
    return frame.sort_values([entity, TIME], ignore_index=True)


def read_labels(settings: Params) -> pd.DataFrame:
    """Return the observations in their order. Raises ProjectError, also where one lacks the entity or time."""
    path = _section(settings).labels
    frame = _read(path, "feature_store.labels", settings, str(settings.data.timestamp))
    if settings.data.target not in frame.columns:
        raise ProjectError(f"{path} lacks the column {settings.data.target!r} of data.target")
    return frame


def _read(path: str, setting: str, settings: Params, time: str) -> pd.DataFrame:
    loaded = load.file(Path(path), setting, settings.data)
    entity = str(settings.data.id)
    for column in (entity, time):
        if column not in loaded.columns:
            raise ProjectError(f"{setting}: {path} lacks the column {column!r}; it has {', '.join(loaded.columns)}")
    frame = table.typed(loaded, settings.data.model_copy(update={"path": path, "timestamp": time}))
    if not pd.api.types.is_datetime64_any_dtype(frame[time]):
        raise ProjectError(f"{setting}: column {time!r} of {path} is not an ISO 8601 date or time in every row")
    for column in (entity, time):
        if missing := frame[column].isna().sum():
            raise ProjectError(f"{setting}: column {column!r} of {path} is missing in {missing} rows")
    try:
        frame[time] = frame[time].dt.as_unit("ns")  # as Feast has times
    except pd.errors.OutOfBoundsDatetime:
        raise ProjectError(
            f"{setting}: column {time!r} of {path} has times outside of the years 1678 to 2261"
        ) from None
    return frame


def _section(settings: Params) -> Section:
    if settings.feature_store is None:
        raise ProjectError("params.yaml has no section feature_store: add it, with labels, features and ttl_days")
    return settings.feature_store


def describe(features: pd.DataFrame, settings: Params) -> dict[str, Any]:
    """Return the description of the features' table that servers need, ready for JSON (docs/system-design.md)."""
    columns = features.columns.drop([settings.data.id, TIME])
    return {
        "entity": settings.data.id,
        "service": settings.package.model_name,
        "ttl_days": _section(settings).ttl_days,
        "features": {column: table.dtype(features[column]) for column in columns},
    }


@contextmanager
def opened(view: dict[str, Any], features: pd.DataFrame | None = None) -> Iterator[FeatureStore]:
    """Yield a Feast store with the description's entity, feature view and service; with `features` it can write.

    Raises ProjectError where FEATURE_STORE_REDIS is not an address of Redis, and for errors of Redis in the block, such
    as down, full or a wrong password, without showing the password.
    """
    online = _online(READ_TIMEOUT if features is None else WRITE_TIMEOUT)
    os.environ["FEAST_USAGE"] = "False"
    from feast import FeatureStore, RepoConfig
    from redis import RedisError

    with tempfile.TemporaryDirectory(prefix="feast-") as name:
        folder = Path(name)
        config = RepoConfig(
            project=view["service"].replace("-", "_").replace(".", "_"),
            provider="local",
            registry=str(folder / "registry.db"),
            offline_store={"type": "dask"},
            online_store=online,
            materialization={"online_write_batch_size": 10_000},  # without it, all rows would have to fit into memory
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        source = folder / "features.parquet"
        if features is not None:
            _storable(features, view).to_parquet(source, index=False)
        store.apply(_objects(view, source))
        try:
            yield store
        except RedisError as error:
            host = online["connection_string"].partition(",")[0]
            raise ProjectError(f"FEATURE_STORE_REDIS, {host}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return the text of an error of Redis without the command's bytes, which hold ids and values."""
    return str(error).rpartition("caused error: ")[2]


def _online(timeout: int) -> dict[str, Any]:
    address = os.environ.get("FEATURE_STORE_REDIS", "")
    if not address:
        ONLINE.parent.mkdir(exist_ok=True)
        return {"type": "sqlite", "path": str(ONLINE.absolute())}
    if "://" in address or ":" not in address.partition(",")[0]:
        raise ProjectError(
            "FEATURE_STORE_REDIS must be like HOST:6379,password=...,ssl=true"
        )  # not shown: it holds a password
    if timeout == READ_TIMEOUT:
        address += ",retry=null"
    for option in ("socket_timeout", "socket_connect_timeout"):  # by default there is no timeout
        if f",{option}=" not in address:
            address += f",{option}={timeout}"
    # By default Feast skips a row whose time is in Redis: corrected values and new columns would not be written.
    return {"type": "redis", "connection_string": address, "skip_dedup": True}


def _objects(view: dict[str, Any], source: Path) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType, types

    entity = Entity(name=view["entity"], join_keys=[view["entity"]], value_type=ValueType.STRING)
    dtypes = {name: types.Float64 if dtype == "number" else types.String for name, dtype in view["features"].items()}
    features = [Field(name=name, dtype=dtype) for name, dtype in dtypes.items()]
    feature_view = FeatureView(
        name=VIEW,
        entities=[entity],
        schema=[Field(name=view["entity"], dtype=types.String), *features],
        source=FileSource(path=str(source), timestamp_field=TIME),
        ttl=timedelta(days=view["ttl_days"] or 0),  # 0 means no limit in Feast
    )
    return [entity, feature_view, FeatureService(name=view["service"], features=[feature_view])]


def _storable(features: pd.DataFrame, view: dict[str, Any]) -> pd.DataFrame:
    """Return the features in the store's types: numbers, and texts for all else (Feast's times have whole seconds)."""
    return features.assign(**{name: _stored(features[name], dtype) for name, dtype in view["features"].items()})


def _stored(column: pd.Series[Any], dtype: str) -> pd.Series[Any]:
    if dtype == "number":
        return column.fillna(MISSING_NUMBER)
    return pd.Series([MISSING if pd.isna(each) else _text(each) for each in column], column.index, dtype=object)


def _text(value: bool | pd.Timestamp | str) -> str:
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value if isinstance(value, str) else str(value).lower()


def restored(found: pd.DataFrame, features: pd.DataFrame, view: dict[str, Any]) -> pd.DataFrame:
    """Return the store's answer with the types that its features have in `features`."""
    for name, dtype in view["features"].items():
        column = found[name].replace({MISSING: None, MISSING_NUMBER: None})
        if dtype == "boolean":
            column = column.map({"true": True, "false": False})
        elif dtype == "datetime":
            column = dtypes.moments(column)
        found[name] = column.astype(features[name].dtype)
    return found
