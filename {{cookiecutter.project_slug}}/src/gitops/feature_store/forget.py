"""Remove an entity from the online store in FEATURE_STORE_REDIS, for `make erase` (privacy/online.py).

Feast removes no single entity: `make materialize` writes those of the table, and leaves what it has written before. So
the entity's key goes, as Feast spells it. ID is the entity; it prints how many keys there were, 0 or 1.
"""

from __future__ import annotations

import argparse
import os

from gitops.core import artifacts, params
from gitops.core.artifacts import FEATURE_VIEW
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.feature_store import feature_store


def main() -> None:
    """Remove the entity, or with --count only look for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", action="store_true", help="remove nothing")
    arguments = parser.parse_args()
    echo(forget(os.environ["ID"], params.load(), count=arguments.count))


def forget(entity: str, settings: Params, *, count: bool = False) -> int:
    """Remove the entity's key and return how many there were. Raises ProjectError for errors of Redis."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    view = (
        artifacts.read_json(FEATURE_VIEW, "make pipeline")
        if FEATURE_VIEW.exists()
        else feature_store.describe(feature_store.read_features(settings), settings)
    )
    with feature_store.opened(view) as store:
        key = EntityKey(join_keys=[view["entity"]], entity_values=[Value(string_val=entity)])
        version = store.config.entity_key_serialization_version
        spelt = serialize_entity_key(key, entity_key_serialization_version=version) + store.project.encode()
        client = store._get_provider().online_store._get_client(store.config.online_store)
        return int(client.exists(spelt) if count else client.delete(spelt))


if __name__ == "__main__":
    artifacts.run(main)
