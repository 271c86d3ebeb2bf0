"""`make materialize`: write each entity's newest features to the online store, which feature_server.py reads."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from . import artifacts, feature_store, params
from .feature_store import TIME


def main() -> None:
    """Write the rows of the features' table that hold by now, or those of the last days."""
    options = _options()
    settings = feature_store.of(params.load())
    features = feature_store.read_features(settings)
    now = datetime.now(UTC)
    begin = features[TIME].min().to_pydatetime() - timedelta(seconds=1)
    if options.days is not None:
        begin = max(begin, now - timedelta(days=options.days))
    recent = features[(features[TIME] >= begin) & (features[TIME] <= now)]
    if not recent.empty:
        with feature_store.opened(feature_store.describe(features, settings), features) as store:
            store.materialize(begin, now)
    print(f"{recent[settings.data.id].nunique()} entities have their newest features in the online store")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="materialize", description="Write the newest features to the online store.")
    parser.add_argument("--days", type=float, help="only rows of so many last days (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    artifacts.run(main)
