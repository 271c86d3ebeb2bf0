"""docker and kind of the stand-in: images, each with the model in it, and the nodes that have some of them."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

from fake_cluster_state import opened


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def network(arguments: list[str], namespace: str) -> None:
    print(json.dumps([{"Subnet": "fc00::/64", "Gateway": "fc00::1"}, {"Gateway": "127.0.0.1"}]))


def build(arguments: list[str], namespace: str) -> None:
    """The image holds the model of package/, which is all that is asked about it later."""
    assert Path(option(arguments, "--file")).is_file()
    [archive] = Path("package").glob("*.mar")
    with zipfile.ZipFile(archive) as packed:
        [model] = [name for name in packed.namelist() if name.endswith(".pt2")]
        sha256 = hashlib.sha256(packed.read(model)).hexdigest()
    with opened() as cluster:
        cluster.built[option(arguments, "--tag")] = sha256


def tag(arguments: list[str], namespace: str) -> None:
    with opened() as cluster:
        cluster.built[arguments[2]] = cluster.built[arguments[1]]


def create(arguments: list[str], namespace: str) -> None:
    with opened() as cluster:
        cluster.clear(option(arguments, "--name"))


def delete(arguments: list[str], namespace: str) -> None:
    with opened() as cluster:
        cluster.name = ""


def load(arguments: list[str], namespace: str) -> None:
    with opened() as cluster:
        if option(arguments, "--name") != cluster.name:
            sys.exit(f"ERROR: no nodes found for cluster {option(arguments, '--name')!r}")
        if arguments[2] not in cluster.built:
            sys.exit(f"ERROR: image: {arguments[2]!r} not present locally")
        cluster.loaded[arguments[2]] = cluster.built[arguments[2]]


ANSWERS = {
    "docker network inspect": network,
    "docker build": build,
    "docker tag": tag,
    "kind create": create,
    "kind delete": delete,
    "kind load": load,
}
