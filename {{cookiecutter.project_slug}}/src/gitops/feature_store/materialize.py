"""`make materialize`: write each entity's newest features to the online store, from which feature_server.py reads."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.feature_store import feature_store
from gitops.feature_store.feature_store import MISSING, MISSING_NUMBER, TIME, VIEW

if TYPE_CHECKING:
    from feast import FeatureStore

#: The id of a row that is written last and shows that the others are complete. No entity has it: an id is not empty.
MARKER = ""


def main() -> None:
    """Write the features that are valid now; with --days, only those of the last days."""
    options = _options()
    settings = params.load()
    features = feature_store.read_features(settings)
    now = datetime.now(UTC)
    newest = features[features[TIME] <= now].groupby(settings.data.id)[TIME].max()
    if newest.empty:
        raise ProjectError(f"no row of the features' table is valid yet: every {TIME} is in the future")
    view = feature_store.describe(features, settings)
    with feature_store.opened(view, features) as store:
        begin = newest.min().to_pydatetime()
        if options.days is not None and complete(store, view):
            begin = max(begin, now - timedelta(days=options.days))
        else:
            _mark(store, view, datetime.fromtimestamp(0, UTC))
        if (newest >= begin).any():
            store.materialize(begin - timedelta(seconds=1), now)
        _mark(store, view, now)
    echo(f"{(newest >= begin).sum()} of {len(newest)} entities: newest features written to the online store")


def _mark(store: FeatureStore, view: dict[str, Any], time: datetime) -> None:
    """Write the row MARKER: every entity has all of these features; with the time 0, some may be missing."""
    row = {name: MISSING_NUMBER if dtype == "number" else MISSING for name, dtype in view["features"].items()}
    store.write_to_online_store(VIEW, pd.DataFrame([row | {view["entity"]: MARKER, TIME: time}]))


def complete(store: FeatureStore, view: dict[str, Any]) -> bool:
    """Tell whether the online store has all of the features of every entity. Raises what Redis raises."""
    service = store.get_feature_service(view["service"])
    found = store.get_online_features(features=service, entity_rows=[{view["entity"]: MARKER}]).proto
    cells = dict(zip(found.metadata.feature_names.val, found.results, strict=True))
    return all(
        cells[name].event_timestamps[0].seconds and cells[name].values[0].WhichOneof("val") for name in view["features"]
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="materialize", description="Write the newest features to the online store.")
    parser.add_argument("--days", type=float, help="only rows of the last DAYS days (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    artifacts.run(main)
