"""What the stand-in of a cluster remembers between two commands: fake_cluster.py."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Object = dict[str, Any]


class Refused(Exception):
    """What the API server, or kubectl before it, refuses, in its words."""


@dataclass
class Cluster:
    """A kind cluster with Argo CD, or none where `name` is empty."""

    name: str = ""
    built: dict[str, str] = field(default_factory=dict)  # image -> sha256 of the model in it
    loaded: dict[str, str] = field(default_factory=dict)  # those of them that the nodes have
    objects: dict[str, Object] = field(default_factory=dict)  # group/kind/namespace/name -> what was applied last
    custom: list[str] = field(default_factory=list)  # group/kind of the custom kinds
    rollouts: dict[str, Object] = field(default_factory=dict)  # of the workloads: fake_cluster_pods.py
    applications: dict[str, Object] = field(default_factory=dict)  # what Argo CD knows: fake_cluster_argo_cd.py
    answered: list[list[str]] = field(default_factory=list)  # namespace and model version of each answer

    @property
    def now(self) -> float:
        """Seconds, as the cluster counts them: those of the file `clock` where there is one."""
        clock = folder() / "clock"
        return float(clock.read_text()) if clock.exists() else time.time() * float(os.environ["FAKE_CLUSTER_SPEED"])

    def clear(self, name: str) -> None:
        """Make the cluster anew."""
        for part in (self.loaded, self.objects, self.rollouts, self.applications):
            part.clear()
        self.custom.clear()
        self.name = name


def folder() -> Path:
    return Path(os.environ["FAKE_CLUSTER"])


@contextmanager
def opened() -> Iterator[Cluster]:
    """Yield the cluster, which no other command changes meanwhile, and keep what is changed."""
    path = folder() / "cluster.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = Cluster(**json.loads(path.read_text())) if path.exists() else Cluster()
        try:
            yield cluster
        finally:
            path.write_text(json.dumps(vars(cluster)))
