"""Stage `join`: a point-in-time join. Each observation gets the features that were known at its time, none later."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gitops.core import artifacts, params
from gitops.core.artifacts import FEATURE_VIEW, JOINED, ProjectError
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.feature_store import feature_store
from gitops.feature_store.feature_store import TIME


def main() -> None:
    """Write data/joined.parquet and data/feature_view.json, and print the number of observations."""
    settings = params.load()
    labels, features = feature_store.read_labels(settings), feature_store.read_features(settings)
    view = feature_store.describe(features, settings)
    joined = join(labels, features, view, settings)
    with artifacts.replacing(JOINED) as temporary:
        joined.to_parquet(temporary, index=False)
    artifacts.write_json(FEATURE_VIEW, view)
    left_out = len(labels) - len(joined)
    echo(f"{JOINED}: {len(joined)} observations; {left_out} without features at their time are left out")


def join(labels: pd.DataFrame, features: pd.DataFrame, view: dict[str, Any], settings: Params) -> pd.DataFrame:
    """Return the observations, in their order, each with the newest row of its entity that is not later than it.

    A row with exactly the same time counts, one older than ttl_days does not. An observation without a row is left out,
    since servers refuse such a request. Raises ProjectError where more than the fraction data.max_lost has none, or a
    column is in both tables.
    """
    data = settings.data
    if both := set(view["features"]) & set(labels.columns):
        raise ProjectError(f"both tables of feature_store have the columns {sorted(both)}: remove them from one")
    asked = labels[[data.id, data.timestamp]].drop_duplicates().rename(columns={data.timestamp: TIME})
    with feature_store.opened(view, features) as store:
        service = store.get_feature_service(view["service"])
        # Feast omits an entity that has only later or too old rows, and returns empty columns for an unknown entity.
        found = store.get_historical_features(entity_df=asked, features=service).to_df()
    found = feature_store.restored(found, features, view).dropna(how="all", subset=list(view["features"]))
    if found.empty:
        raise ProjectError("no observation has features at its time: do both tables have the same entities?")
    found = found.rename(columns={TIME: data.timestamp})
    found[data.timestamp] = found[data.timestamp].astype(labels[data.timestamp].dtype)
    check_lost(labels, found, data)
    joined = labels.merge(found, on=[data.id, data.timestamp], how="inner", validate="many_to_one")
    return joined[[*labels.columns, *view["features"]]]


def check_lost(labels: pd.DataFrame, found: pd.DataFrame, data: Data) -> None:
    """Raise ProjectError where more than data.max_lost of the observations have no features at their time."""
    keys = [data.id, data.timestamp]
    lost = ~pd.MultiIndex.from_frame(labels[keys]).isin(pd.MultiIndex.from_frame(found[keys]))
    if lost.mean() > data.max_lost:
        raise ProjectError(
            f"feature_store.labels: {lost.sum()} of {len(labels)} observations have no features at their time, the "
            f"first is row {lost.argmax()} (counted from 0 after the header), more than data.max_lost "
            f"({data.max_lost}) allows: correct {data.id!r} or the times in the two tables, or raise the limit"
        )


if __name__ == "__main__":
    artifacts.run(main)
