"""Stands for docker, kind and kubectl, by the name that it is started under: a cluster whose Argo CD follows a branch.

State is kept in the folder FAKE_CLUSTER. An annotation that asks for a refresh fetches the branch over HTTP, as Argo CD
would; a forwarded port answers with the model that the Deployment in it names. `kubectl kustomize`, which needs no
cluster, is the machine's own. Whatever else is asked for is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml

STATE = Path(os.environ["FAKE_CLUSTER"])


def main() -> None:
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if "--namespace" in arguments:
        position = arguments.index("--namespace")
        del arguments[position : position + 2]
    for known in (" ".join(arguments[:length]) for length in (2, 1)):
        if answer := ANSWERS.get(f"{program} {known}"):
            answer(arguments)
            return
    sys.exit(f"{program} {' '.join(arguments)}: not known here")


def nothing(arguments: list[str]) -> None:
    pass


def kustomize(arguments: list[str]) -> None:
    here = str(Path(sys.argv[0]).parent)
    kubectl = shutil.which("kubectl", path=os.environ["PATH"].replace(here, ""))
    assert kubectl, "kubectl is not on PATH"
    os.execv(kubectl, [kubectl, *arguments])  # noqa: S606


def network(arguments: list[str]) -> None:
    print(json.dumps([{"Subnet": "fc00::/64", "Gateway": "fc00::1"}, {"Gateway": "127.0.0.1"}]))


def build(arguments: list[str]) -> None:
    assert Path(arguments[arguments.index("--file") + 1]).is_file()
    assert list(Path("package").glob("*.mar"))
    note("built.json", arguments[arguments.index("--tag") + 1])


def load(arguments: list[str]) -> None:
    assert arguments[2] in notes("built.json")
    note("loaded.json", arguments[2])


def apply(arguments: list[str]) -> None:
    if arguments[-1] == "-":
        [application] = [item for item in json.load(sys.stdin)["items"] if item["kind"] == "Application"]
        (STATE / "application.json").write_text(json.dumps(application))


def refresh(arguments: list[str]) -> None:
    source = json.loads((STATE / "application.json").read_text())["spec"]["source"]
    with tempfile.TemporaryDirectory() as folder:
        clone = ("git", "clone", "--quiet", "--branch", source["targetRevision"], source["repoURL"], folder)
        subprocess.run(clone, check=True)
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        objects = [yaml.safe_load(path.read_text()) for path in Path(folder, source["path"]).iterdir()]
    [deployment] = [entry for entry in objects if entry["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    [container] = template["spec"]["containers"]
    model = template["metadata"]["annotations"]["model-sha256"]
    health = "Healthy" if container["image"] in notes("loaded.json") else "Degraded"
    synced = {"revision": revision.stdout.strip(), "health": health, "version": model[:12]}
    (STATE / "synced.json").write_text(json.dumps(synced))


def status(arguments: list[str]) -> None:
    synced = json.loads((STATE / "synced.json").read_text())
    sync = {"status": "Synced", "revision": synced["revision"]}
    health, operation = {"status": synced["health"]}, {"phase": "Succeeded"}
    print(json.dumps({"status": {"sync": sync, "health": health, "operationState": operation}}))


class Model(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        version = json.loads((STATE / "synced.json").read_text())["version"]
        note("answered.json", version)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"predictions": request["instances"], "model_version": version}).encode())


def forward(arguments: list[str]) -> None:
    with HTTPServer(("127.0.0.1", 0), Model) as server:
        print(f"Forwarding from 127.0.0.1:{server.server_port} -> 8080", flush=True)
        server.serve_forever()


def notes(file: str) -> list[Any]:
    path = STATE / file
    return list(json.loads(path.read_text())) if path.exists() else []


def note(file: str, value: str) -> None:
    (STATE / file).write_text(json.dumps([*notes(file), value]))


ANSWERS = {
    "docker network inspect": network,
    "docker build": build,
    "kind create": nothing,
    "kind delete": nothing,
    "kind load": load,
    "kubectl kustomize": kustomize,
    "kubectl create namespace": nothing,
    "kubectl rollout status": nothing,
    "kubectl apply": apply,
    "kubectl annotate application": refresh,
    "kubectl patch deployment": nothing,
    "kubectl get application": status,
    "kubectl port-forward": forward,
}


if __name__ == "__main__":
    main()
