"""`make image-digests` against a registry of this machine that asks for an anonymous token, as ghcr.io does."""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from projects import ROOT

INDEX = "application/vnd.oci.image.index.v1+json"
BODY = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
ANONYMOUS = "an anonymous one"

MANIFEST = """kind: Deployment
spec:
  containers:
    - name: tracking
      image: {host}/mlflow/mlflow:v3.17.2-full  # a comment
    - image: {host}/mlflow/mlflow:v3.17.2-full
    - image: docker.io/library/postgres:18@sha256:{other}
    - image: model-server
"""


@dataclass
class Registry:
    """What a registry has under mlflow/mlflow:v3.17.2-full, and how it answers."""

    host: str = ""
    body: bytes = BODY
    digest: str = DIGEST
    kind: str = INDEX
    challenge: str = 'Bearer realm="http://{host}/token",service="registry",scope="repository:mlflow/mlflow:pull"'
    asked: list[str] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                registry.asked.append(f"{self.command} {self.path}")
                place = urlsplit(self.path)
                if place.path == "/token":
                    wanted = {"service": ["registry"], "scope": ["repository:mlflow/mlflow:pull"]}
                    body = json.dumps({"token": ANONYMOUS}).encode()
                    self.answer(200 if parse_qs(place.query) == wanted else 403, body)
                elif self.headers["Authorization"] != f"Bearer {ANONYMOUS}":
                    self.answer(401, b"", **{"WWW-Authenticate": registry.challenge.format(host=registry.host)})
                elif INDEX not in self.headers["Accept"] or place.path not in (
                    "/v2/mlflow/mlflow/manifests/v3.17.2-full",
                    f"/v2/mlflow/mlflow/manifests/{registry.digest}",
                ):
                    self.answer(404, b"")
                else:
                    named = {"Docker-Content-Digest": registry.digest} if registry.digest else {}
                    self.answer(200, registry.body, **named, **{"Content-Type": registry.kind})

            def answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    with ThreadingHTTPServer(("127.0.0.1", 0), found.handler()) as server:
        found.host = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("image_digests")


@pytest.fixture
def manifest(registry: Registry, tmp_path: Path) -> Path:
    path = tmp_path / "mlflow/mlflow.yaml"
    path.parent.mkdir()
    path.write_text(MANIFEST.format(host=registry.host, other="0" * 64))
    return path


def test_the_digest_is_put_behind_the_tag(
    manifest: Path, registry: Registry, program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every line with that image; once it is there, nobody is asked."""
    before = manifest.read_text()
    program.main(manifest.parents[1])
    assert manifest.read_text() == before.replace("v3.17.2-full", f"v3.17.2-full@{DIGEST}")
    assert capsys.readouterr().out == f"{registry.host}/mlflow/mlflow:v3.17.2-full@{DIGEST}\n"
    assert registry.asked[0] == "HEAD /v2/mlflow/mlflow/manifests/v3.17.2-full"
    assert registry.asked[-1] == f"GET /v2/mlflow/mlflow/manifests/{DIGEST}"
    asked = len(registry.asked)
    program.main(manifest.parents[1])
    assert len(registry.asked) == asked
    assert capsys.readouterr().out == "Every image has its digest.\n"


#: What is wrong with a registry's answer: attributes of Registry, and what the program says.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another body": ({"body": BODY + b" "}, "with another manifest"),
    "no digest": ({"digest": ""}, "names no sha256 digest"),
    "another algorithm": ({"digest": f"sha512:{'0' * 128}"}, "names no sha256 digest"),
    "no image": ({"kind": "application/json"}, "with application/json, which is no image"),
    "too long": ({"body": b" " * (4 * 2**20 + 1)}, "more than 4194304 bytes"),
    "a password": ({"challenge": 'Basic realm="registry"'}, "wants another proof than an anonymous token"),
    "a token from a file": (
        {"challenge": 'Bearer realm="file:///etc/passwd",service="registry"'},
        "wants another proof than an anonymous token",
    ),
    "a token of another service": (
        {"challenge": 'Bearer realm="http://{host}/token",service="other"'},
        "403 Forbidden",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_answer_that_is_not_to_be_trusted_changes_nothing(
    case: str, manifest: Path, registry: Registry, program: ModuleType
) -> None:
    attributes, reason = WRONG[case]
    vars(registry).update(attributes)
    before = manifest.read_text()
    with pytest.raises(SystemExit, match=reason):
        program.main(manifest.parents[1])
    assert manifest.read_text() == before


def test_an_unknown_tag_is_named(manifest: Path, registry: Registry, program: ModuleType) -> None:
    manifest.write_text(manifest.read_text().replace("v3.17.2-full", "v9"))
    with pytest.raises(SystemExit, match=f"http://{registry.host}/v2/mlflow/mlflow/manifests/v9: 404 Not Found"):
        program.main(manifest.parents[1])


def test_only_indexes_and_images_are_asked_for(
    manifest: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is asked for less answers to the tag with something else, or not at all."""
    monkeypatch.setattr(program, "ACCEPT", ("application/vnd.docker.distribution.manifest.v1+json",))
    with pytest.raises(SystemExit, match="404 Not Found"):
        program.main(manifest.parents[1])


@pytest.mark.parametrize(
    ("image", "address"),
    [
        ("ghcr.io/mlflow/mlflow:v3-full", "https://ghcr.io/v2/mlflow/mlflow/manifests/v3-full"),
        ("docker.io/library/redis:8.2", "https://registry-1.docker.io/v2/library/redis/manifests/8.2"),
        ("127.0.0.1:5000/a/b:1", "http://127.0.0.1:5000/v2/a/b/manifests/1"),
    ],
)
def test_registries_are_found(image: str, address: str, program: ModuleType) -> None:
    found = program.Image.of(image)
    assert found.manifest(found.tag) == address


def test_the_platforms_images_are_seen(program: ModuleType) -> None:
    """Each that has no digest, by the pattern that the program looks for."""
    lines = [line for path in program.K8S.rglob("*.yaml") for line in path.read_text().splitlines()]
    images = [line for line in lines if " image: " in line and "/" in line]  # the others are set by kustomize
    assert len(images) >= 4
    assert all(("@sha256:" in line) != bool(program.IMAGE.search(line)) for line in images)
