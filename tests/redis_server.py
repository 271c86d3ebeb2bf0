"""A real Redis, started with the command, the files and the Secrets that a generated project's k8s/redis has."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from servers import free_port

#: Stands for kubectl in the commands of k8s/redis/kustomization.yaml: a Secret is a folder, a key a file in it.
KUBECTL = """#!/bin/sh
set -eu
[ "$3" = create ] || exit 0
mkdir -p "$SECRETS/$6"
for literal in "$@"; do
  case $literal in --from-literal=*)
    pair=${literal#--from-literal=}
    printf %s "${pair#*=}" > "$SECRETS/$6/${pair%%=*}" ;;
  esac
done
"""


@dataclass
class Redis:
    """A server of a project's own: its folder, its port, and its process once it is started."""

    project: Path
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        documented = (self.project / "k8s/redis/kustomization.yaml").read_text().partition("apiVersion")[0]
        commands = re.sub(
            r"(?m)^# ? ?", "", documented[documented.index("#   kubectl") :].partition("# Further keys")[0]
        )
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "bin/kubectl").write_text(KUBECTL)
        (self.folder / "bin/kubectl").chmod(0o755)
        environment = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "SECRETS": str(self.folder / "secrets")}
        subprocess.run(["sh", "-euc", commands], env=environment, check=True)
        (self.folder / "data").mkdir()
        objects = list(yaml.safe_load_all((self.project / "k8s/redis/redis.yaml").read_text()))
        pod = next(each for each in objects if each["kind"] == "Deployment")["spec"]["template"]["spec"]
        self.container: dict[str, Any] = pod["containers"][0]
        secrets = {volume["name"]: volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}
        self.places = {
            mount["mountPath"]: self.folder / "secrets" / secrets[mount["name"]]
            if secrets[mount["name"]]
            else self.folder / mount["name"]
            for mount in self.container["volumeMounts"]
        }

    @property
    def settings(self) -> Path:
        """The folder of the Secret that the feature server and the materialisation get."""
        return self.folder / f"secrets/{self.project.name}-feature-store"

    @property
    def address(self) -> str:
        """FEATURE_STORE_REDIS, with this port in place of the Service's name."""
        given = (self.settings / "FEATURE_STORE_REDIS").read_text()
        return given.replace(f"{self.project.name}-redis:6379", f"127.0.0.1:{self.port}")

    @property
    def password(self) -> str:
        return self.address.partition("password=")[2]

    def start(self) -> None:
        """Run the container's command, with the volumes' places on this machine, until it answers its probe."""
        command = list(self.container["command"])
        for place, folder in self.places.items():
            command = [re.sub(f"^{place}(?=/|$)", str(folder), each) for each in command]
        with (self.folder / "log").open("ab") as log:
            own = ["--port", str(self.port), "--bind", "127.0.0.1"]
            self.process = subprocess.Popen([*command, *own], cwd=self.folder, stdout=log, stderr=log)
        for _ in range(100):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            if self.probe() and self("INFO", "persistence").count("loading:0"):
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def probe(self) -> bool:
        """Run what Kubernetes runs, within the time that it gives."""
        probe = self.container["livenessProbe"]
        program, *arguments = probe["exec"]["command"]
        command = [program, "-p", str(self.port), *arguments]
        try:
            return subprocess.run(command, capture_output=True, timeout=probe["timeoutSeconds"]).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def __call__(self, *command: str) -> str:
        """Return what Redis says to a command."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *command],
            env={"REDISCLI_AUTH": self.password, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout.strip()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server, if there is one: SIGKILL as a node that is lost does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(30)
        self.process = None

    def lose(self) -> None:
        """Start it again without what it had."""
        self.stop()
        shutil.rmtree(self.folder / "data")
        (self.folder / "data").mkdir()
        self.start()
