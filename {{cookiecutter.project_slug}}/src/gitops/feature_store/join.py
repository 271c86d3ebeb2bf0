"""Stage `join`: give each observation the features that were known when it was made, none that came later."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gitops.core import artifacts, params
from gitops.core.artifacts import FEATURE_VIEW, JOINED, ProjectError
from gitops.core.params import Params
from gitops.feature_store import feature_store
from gitops.feature_store.feature_store import TIME


def main() -> None:
    """Write data/joined.parquet and data/feature_view.json, and say how many observations there are."""
    settings = params.load()
    labels, features = feature_store.read_labels(settings), feature_store.read_features(settings)
    view = feature_store.describe(features, settings)
    joined = join(labels, features, view, settings)
    with artifacts.replacing(JOINED) as temporary:
        joined.to_parquet(temporary, index=False)
    artifacts.write_json(FEATURE_VIEW, view)
    print(f"{JOINED}: {len(joined)} observations, {len(labels) - len(joined)} had no features yet and are left out")


def join(labels: pd.DataFrame, features: pd.DataFrame, view: dict[str, Any], settings: Params) -> pd.DataFrame:
    """Return the observations, in their order, each with the newest row of its entity that is not younger than it.

    A row of the very same time counts as known, one older than ttl_days does not. An observation without one is left
    out: servers refuse such a request. Raises ProjectError where none has one, or a column is in both tables.
    """
    data = settings.data
    if both := set(view["features"]) & set(labels.columns):
        raise ProjectError(f"the tables of feature_store both have the columns {sorted(both)}: take them out of one")
    asked = labels[[data.id, data.timestamp]].drop_duplicates().rename(columns={data.timestamp: TIME})
    with feature_store.opened(view, features) as store:
        service = store.get_feature_service(view["service"])
        # Feast leaves out whom nothing but later or older rows are of, and gives whom it does not know empty columns.
        found = store.get_historical_features(entity_df=asked, features=service).to_df()
    found = feature_store.restored(found, features, view).dropna(how="all", subset=list(view["features"]))
    if found.empty:
        raise ProjectError("no observation has features of its time or before: are the tables' entities the same?")
    found = found.rename(columns={TIME: data.timestamp})
    found[data.timestamp] = found[data.timestamp].astype(labels[data.timestamp].dtype)
    joined = labels.merge(found, on=[data.id, data.timestamp], how="inner", validate="many_to_one")
    return joined[[*labels.columns, *view["features"]]]


if __name__ == "__main__":
    artifacts.run(main)
