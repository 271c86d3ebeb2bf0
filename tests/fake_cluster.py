"""Stands for docker, kind and kubectl, by the name that it is started under: a cluster with Argo CD.

It refuses and holds what a real one does (fake_cluster_api.py, fake_cluster_sync.py). Its state is in the folder
FAKE_CLUSTER. Its time passes FAKE_CLUSTER_SPEED times as fast as the real one, or as a file `clock` there says.
`kubectl kustomize`, which needs no cluster, is the machine's own. Whatever else is asked for is refused.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fake_cluster_api as api
import fake_cluster_argo_cd as argo_cd
import fake_cluster_kind
import fake_cluster_pods as pods
import yaml
from fake_cluster_application import kubectl
from fake_cluster_kind import option
from fake_cluster_state import Object, Refused, opened

PROGRAM = """#!{python}
import sys
sys.path.insert(0, {folder!r})
import fake_cluster
fake_cluster.main()
"""


def install(folder: Path) -> None:
    """Write the three programs to a folder, for PATH."""
    folder.mkdir()
    text = PROGRAM.format(python=sys.executable, folder=str(Path(__file__).parent))
    for name in ("docker", "kind", "kubectl"):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)


def main() -> None:
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    namespace = ""
    if "--namespace" in arguments:
        position = arguments.index("--namespace")
        namespace = arguments[position + 1]
        del arguments[position : position + 2]
    for known in (" ".join(arguments[:length]) for length in (2, 1)):
        if answer := ANSWERS.get(f"{program} {known}"):
            try:
                answer(arguments, namespace)
            except Refused as refused:
                sys.exit(f"Error from server: {refused}")
            return
    sys.exit(f"{program} {' '.join(arguments)}: not known here")


def kustomize(arguments: list[str], namespace: str) -> None:
    os.execv(kubectl(), [kubectl(), *arguments])  # noqa: S606


def apply(arguments: list[str], namespace: str) -> None:
    """Apply all objects; what is refused does not keep the others away."""
    text = ""
    if "--kustomize" in arguments:
        text = argo_cd.installed(Path(option(arguments, "--kustomize")))
    elif (file := option(arguments, "--filename")) == "-":
        text = sys.stdin.read()
    documents = [document for document in yaml.safe_load_all(text) if document]
    objects = [item for document in documents for item in document.get("items", [document])]
    if not objects:
        objects = api.published(file)
    with opened() as cluster:
        refused = [problem for item in objects if (problem := api.problem(cluster, item))]
        argo_cd.reconcile(cluster)
    if refused:
        raise Refused("; ".join(refused))


def annotate(arguments: list[str], namespace: str) -> None:
    assert arguments[3:] == ["argocd.argoproj.io/refresh=normal", "--overwrite"]
    with opened() as cluster:
        api.found(cluster, arguments[1], namespace, arguments[2])
        argo_cd.reconcile(cluster, look=arguments[2])


def get(arguments: list[str], namespace: str) -> None:
    assert option(arguments, "--output") == "json"
    with opened() as cluster:
        argo_cd.reconcile(cluster)
        try:
            item: Object = api.found(cluster, arguments[1], namespace, arguments[2])
        except Refused:
            if "--ignore-not-found" in arguments:
                return
            raise
        says: dict[str, Callable[..., Object]] = {"Application": argo_cd.status, "Deployment": pods.status}
        status = says[item["kind"]](cluster, item) if item["kind"] in says else {}
    print(json.dumps({**item, "status": status}))


def rollout(arguments: list[str], namespace: str) -> None:
    """Wait for a Deployment; that all parts of Argo CD and metrics-server run is taken for granted."""
    if namespace in ("argocd", "kube-system"):
        return
    kind, _, name = arguments[2].partition("/")
    end = time.monotonic() + float(option(arguments, "--timeout").removesuffix("s"))
    while time.monotonic() < end:
        with opened() as cluster:
            argo_cd.reconcile(cluster)
            health = pods.health(cluster, api.found(cluster, kind, namespace, name))
        if health == "Healthy":
            print(f'deployment "{name}" successfully rolled out')
            return
        if health == "Degraded":
            sys.exit(f'error: deployment "{name}" exceeded its progress deadline')
        time.sleep(0.1)
    sys.exit("error: timed out waiting for the condition")


def nothing(arguments: list[str], namespace: str) -> None:
    pass


def forward(arguments: list[str], namespace: str) -> None:
    with opened() as cluster:
        argo_cd.reconcile(cluster)
        service = api.found(cluster, "service", namespace, arguments[1].removeprefix("service/"))
        if pods.answering(cluster, service) is None:
            sys.exit("error: unable to forward port because pod is not running. Current status=Pending")

    class Model(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with opened() as cluster:
                version = (pods.answering(cluster, service) or "")[:12]
                cluster.answered.append([namespace, version])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"predictions": request["instances"], "model_version": version}).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Model) as server:
        print(f"Forwarding from 127.0.0.1:{server.server_port} -> 8080", flush=True)
        server.serve_forever()


ANSWERS: dict[str, Callable[[list[str], str], None]] = {
    **fake_cluster_kind.ANSWERS,
    "kubectl kustomize": kustomize,
    "kubectl rollout status": rollout,
    "kubectl apply": apply,
    "kubectl annotate application": annotate,
    "kubectl patch deployment": nothing,
    "kubectl get application": get,
    "kubectl get deployment": get,
    "kubectl get networkpolicy": get,
    "kubectl port-forward": forward,
}


if __name__ == "__main__":
    main()
