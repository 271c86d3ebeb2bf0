"""`make materialize`: write each entity's newest features to the online store, which feature_server.py reads."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import artifacts, feature_store, params
from .artifacts import ProjectError
from .feature_store import TIME

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore


def main() -> None:
    """Write the rows of the features' table that hold by now; with --days, those of the last days alone."""
    options = _options()
    settings = params.load()
    features = feature_store.read_features(settings)
    now = datetime.now(UTC)
    newest = features[features[TIME] <= now].groupby(settings.data.id)[TIME].max()
    if newest.empty:
        raise ProjectError(f"no row of the features' table holds yet: all of its {TIME} are to come")
    view = feature_store.describe(features, settings)
    with feature_store.opened(view, features) as store:
        begin = newest.min().to_pydatetime()
        if options.days is not None and not _lost(store, view, newest):
            begin = max(begin, now - timedelta(days=options.days))
        if (newest >= begin).any():
            store.materialize(begin - timedelta(seconds=1), now)
    print(f"{(newest >= begin).sum()} of {len(newest)} entities: newest features written to the online store")


def _lost(store: FeatureStore, view: dict[str, Any], newest: pd.Series[Any]) -> bool:
    """Tell whether the online store lacks the entity that is in it for longest: then it has been emptied."""
    rows = [{view["entity"]: newest.idxmin()}]
    found = store.get_online_features(features=store.get_feature_service(view["service"]), entity_rows=rows)
    return not any(time.seconds for column in found.proto.results for time in column.event_timestamps)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="materialize", description="Write the newest features to the online store.")
    parser.add_argument("--days", type=float, help="only rows of so many last days (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    artifacts.run(main)
