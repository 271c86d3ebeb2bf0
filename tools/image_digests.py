"""`make image-digests`: put the digest behind each image in k8s/ that has a tag and no digest, as its registry has it.

A tag may be pushed again, a digest names one image for ever. Registries are asked without an account. Only the standard
library is imported. Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for the token
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path

K8S = Path(__file__).resolve().parents[1] / "k8s"

#: `image: registry/name:tag`, to the end of the line or a comment.
IMAGE = re.compile(r"(?m)^(?P<key>[ -]*image: )(?P<image>[\w.-]+(?::\d+)?(?:/[\w.-]+)+:[\w.-]+)(?=\s|$)", re.ASCII)

#: Of all platforms first: what a node pulls by such a digest fits its processor.
ACCEPT = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

#: Where images named docker.io/... are.
DOCKER_HUB = "registry-1.docker.io"

#: Bytes that a manifest may have (registries take 4 MiB), and seconds that an answer may take.
MANIFEST_BYTES, TIMEOUT = 4 * 2**20, 30


class LookupFailed(Exception):
    """The registry has no such image, or its answer is not to be trusted."""


@dataclass(frozen=True)
class Image:
    """An image's name in its registry, and its tag."""

    registry: str
    name: str
    tag: str

    @classmethod
    def of(cls, text: str) -> Image:
        """Return what `registry/name:tag` names."""
        registry, _, rest = text.partition("/")
        name, _, tag = rest.rpartition(":")
        return cls(registry, name, tag)

    def manifest(self, reference: str) -> str:
        """Return the address of the manifest with a tag or digest."""
        host = DOCKER_HUB if self.registry == "docker.io" else self.registry
        scheme = "http" if urllib.parse.urlsplit(f"//{host}").hostname == "127.0.0.1" else "https"
        return f"{scheme}://{host}/v2/{self.name}/manifests/{reference}"


def main(folder: Path = K8S) -> None:
    """Write the digests into the files of the folder, or change none of them."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))}
    wanted = sorted({found["image"] for text in texts.values() for found in IMAGE.finditer(text)})
    try:
        digests = {image: digest(Image.of(image)) for image in wanted}
    except (LookupFailed, OSError, ValueError) as error:  # urllib's errors are OSErrors
        sys.exit(f"error: {error}")
    for path, text in texts.items():
        pinned = IMAGE.sub(lambda found: f"{found['key']}{found['image']}@{digests[found['image']]}", text)
        if pinned != text:
            path.write_text(pinned, encoding="utf-8")
    for image, found in digests.items():
        print(f"{image}@{found}")
    if not digests:
        print("Every image has its digest.")


def digest(image: Image) -> str:
    """Return the digest of what the image's tag stands for now. Raises LookupFailed, OSError or ValueError."""
    headers, _ = ask("HEAD", image, image.tag)
    found = headers.get("Docker-Content-Digest", "")
    if not DIGEST.fullmatch(found):
        raise LookupFailed(f"{image.registry} names no sha256 digest for {image.name}:{image.tag}")
    headers, body = ask("GET", image, found)
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != found:
        raise LookupFailed(f"{image.registry} answers to {image.name}@{found} with another manifest")
    kind = headers.get_content_type()
    if kind not in ACCEPT or json.loads(body).get("mediaType", kind) != kind:
        raise LookupFailed(f"{image.registry} answers to {image.name}:{image.tag} with {kind}, which is no image")
    return found


def ask(method: str, image: Image, reference: str) -> tuple[HTTPMessage, bytes]:
    """Ask for a manifest, with a token if the registry wants one. Raises LookupFailed or OSError."""
    url = image.manifest(reference)
    try:
        return send(method, url, "")
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise LookupFailed(f"{method} {url}: {error.code} {error.reason}") from error
        challenge = error.headers.get("WWW-Authenticate", "")
    try:
        return send(method, url, token(challenge, image))
    except urllib.error.HTTPError as error:
        raise LookupFailed(f"{method} {url}: {error.code} {error.reason}") from error


def token(challenge: str, image: Image) -> str:
    """Return an anonymous token for pulling the image. Raises LookupFailed for another challenge, or OSError."""
    kind, _, rest = challenge.partition(" ")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = fields.get("realm", "")
    if kind.lower() != "bearer" or not realm.startswith(f"{urllib.parse.urlsplit(image.manifest('')).scheme}://"):
        raise LookupFailed(f"{image.registry} wants another proof than an anonymous token")
    question = {"scope": f"repository:{image.name}:pull"}
    if "service" in fields:
        question["service"] = fields["service"]
    _, body = send("GET", f"{realm}?{urllib.parse.urlencode(question)}", "")
    answer = json.loads(body)
    return str(answer.get("token") or answer.get("access_token") or "")


def send(method: str, url: str, bearer: str) -> tuple[HTTPMessage, bytes]:
    """Return headers and body of an answer. Raises LookupFailed where it is too long, or OSError."""
    headers = {"Accept": ", ".join(ACCEPT)} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    request = urllib.request.Request(url, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        body = response.read(MANIFEST_BYTES + 1)
        if len(body) > MANIFEST_BYTES:
            raise LookupFailed(f"{url}: the answer has more than {MANIFEST_BYTES} bytes")
        return response.headers, body


if __name__ == "__main__":
    main()
