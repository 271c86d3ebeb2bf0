"""Runs the pods of rendered manifests on this machine: arguments, settings, volumes, Secrets, in their images."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import Buildah, enter

Object = dict[str, Any]


@dataclass
class Cluster:
    """What pods find: rendered objects, images by their name without tag or digest, Secrets by name and key.

    It keeps its pods' volumes in `folder`.
    """

    objects: list[Object]
    images: dict[str, tuple[Path, dict[str, Any]]]  # files, configuration
    secrets: dict[str, dict[str, str]]
    folder: Path

    def add_image(self, name: str, buildah: Buildah, image: str) -> None:
        self.images[name] = buildah.files(image), buildah.config(image)["config"]

    def pod(self, kind: str, name: str) -> Pod:
        """Return a new pod of the object. To a Job's name a release has appended a hash."""
        named = re.compile(re.escape(name) + ("-[a-z0-9]{10}" if kind == "Job" else ""))
        [found] = [item for item in self.objects if item["kind"] == kind and named.fullmatch(item["metadata"]["name"])]
        spec = found["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else found["spec"]
        self.folder.mkdir(exist_ok=True)
        folder = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Pod(self, spec["template"], folder)


class Pod:
    """One pod. Raises AssertionError where it asks for another user or a root that can be written."""

    def __init__(self, cluster: Cluster, template: Object, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.annotations, self.spec = template["metadata"].get("annotations", {}), template["spec"]
        context = self.spec["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (1000, 1000, 1000)
        for volume in self.spec["volumes"]:
            self._make(volume)

    def _make(self, volume: Object) -> None:
        place = self.folder / volume["name"]
        place.mkdir()
        if "emptyDir" in volume:
            os.chown(place, 0, 1000)
            place.chmod(0o2777)
            return
        source = volume["secret"]
        known = self.cluster.secrets.get(source["secretName"])
        assert known is not None or source.get("optional"), f"no Secret {source['secretName']}"
        # As the kubelet does it: the files lie in a folder of a hidden name, and links name them.
        (place / "..data").mkdir()
        keys = {item["key"]: item["path"] for item in source.get("items", [])} or {key: key for key in known or {}}
        for key, path in keys.items():
            (place / "..data" / path).write_text((known or {})[key])
            os.chown(place / "..data" / path, 0, 1000)
            (place / "..data" / path).chmod(0o440)
            (place / path).symlink_to(f"..data/{path}")

    def container(self, name: str) -> Object:
        containers = [*self.spec.get("initContainers", []), *self.spec["containers"]]
        return next(container for container in containers if container["name"] == name)

    def image(self, name: str) -> tuple[Path, dict[str, Any]]:
        """Return files and configuration of the container's image."""
        bare, *_ = re.split(r"@|:(?=[^/]*$)", self.container(name)["image"])  # a colon before a slash is a port's
        return self.cluster.images[bare]

    def command(self, name: str, *more: str) -> list[str]:
        """Return the command that runs the container, with `more` arguments."""
        container = self.container(name)
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        root, config = self.image(name)
        assert config["User"] == "1000:1000"
        mounts = {
            mount["mountPath"]: (self.folder / mount["name"], "ro" if mount.get("readOnly") else "rw")
            for mount in container["volumeMounts"]
        }
        return enter(
            root,
            config,
            *container.get("args", []),
            *more,
            environment=self._environment(container),
            mounts=mounts,
            command=container.get("command"),
        )

    def _environment(self, container: Object) -> dict[str, str]:
        values: dict[str, str] = {}
        for source in container.get("envFrom", []):
            name = source["configMapRef"]["name"]
            objects = self.cluster.objects
            [settings] = [it for it in objects if (it["kind"], it["metadata"]["name"]) == ("ConfigMap", name)]
            values |= settings["data"]
        for variable in container.get("env", []):
            if "value" in variable:
                values[variable["name"]] = variable["value"]
            else:
                path = variable["valueFrom"]["fieldRef"]["fieldPath"]
                values[variable["name"]] = self.annotations[path.removeprefix("metadata.annotations['").rstrip("']")]
        return values

    def start(self, name: str = "job", *more: str) -> subprocess.Popen[str]:
        """Start the container; it writes to `log` in the pod's folder."""
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(self.command(name, *more), stdout=log, stderr=subprocess.STDOUT, text=True)

    def run(self, name: str = "job") -> tuple[int, str]:
        """Run the container to its end, and return its exit status and what the pod has said."""
        status = self.start(name).wait(600)
        return status, self.log()

    def log(self) -> str:
        """Return what the pod has said. Raises AssertionError where a Secret is in it."""
        said = (self.folder / "log").read_text()
        for keys in self.cluster.secrets.values():
            assert not [key for key, value in keys.items() if value.strip() in said], "the log holds a secret"
        return said

    @contextmanager
    def running(self, name: str, *more: str) -> Iterator[subprocess.Popen[str]]:
        """Run the container until the block ends; then ask its first process to stop, as the kubelet does."""
        process = self.start(name, *more)
        try:
            yield process
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.Signals[self.image(name)[1].get("StopSignal", "SIGTERM")])
            assert process.wait(20) == 0, self.log()[-3000:]
        finally:
            process.kill()
            process.wait()
