"""Sign the image that IMAGE names by its digest, with cosign 3 (`make sign`).

A public repository's image (PRIVATE=false) is signed without a key: the certificate names the workflow, and all of it
is kept in Sigstore's public log. That log would publish the name of a private repository, so there the signature is by
the key in COSIGN_PRIVATE_KEY, whose password is in COSIGN_PASSWORD, and is kept nowhere but beside the image.

Without a log cosign 3 refuses `--tlog-upload=false` and asks for a signing config that names no service. Source:
cmd/cosign/cli/signcommon/common.go, LoadTrustedMaterialAndSigningConfig, and doc/cosign_signing-config_create.md of
https://github.com/sigstore/cosign (v3.0.4 to v3.1.2). Only the standard library is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from gitops.core import actions
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import annotate, echo, one_line, relay

#: What cosign is to ask no service for: certificates, identities, the log, the time.
NO_SERVICES = ("--no-default-fulcio", "--no-default-oidc", "--no-default-rekor", "--no-default-tsa")

UNSIGNED = (
    "this repository is private and has no key for its images: `make github` makes one and keeps it as the secrets "
    "COSIGN_PRIVATE_KEY and COSIGN_PASSWORD of the environment `main`"
)


def main() -> None:
    """Sign the image, or say that it is not signed and what would change that."""
    image = os.environ.get("IMAGE", "")
    if not re.fullmatch(r"[\w][\w./:-]*@sha256:[0-9a-f]{64}", image):
        raise ProjectError(f"IMAGE is {one_line(image, 200)!r}: NAME@sha256:DIGEST is needed")
    if os.environ.get("PRIVATE") == "false":
        _cosign("sign", "--yes", image)
        echo(f"signed, in Sigstore's public log: {image}")
    elif os.environ.get("COSIGN_PRIVATE_KEY"):
        with_key(image)
        echo(f"signed by the key in COSIGN_PRIVATE_KEY, in no log: {image}")
    else:
        annotate("warning", "The image is not signed", UNSIGNED)
        actions.summarise(f"The image is not signed: {UNSIGNED}.")
        echo(f"not signed: {image}", UNSIGNED)


def with_key(image: str) -> None:
    """Sign the image by the key in COSIGN_PRIVATE_KEY, which is on no command line. Raises ProjectError."""
    if "COSIGN_PASSWORD" not in os.environ:
        raise ProjectError("COSIGN_PRIVATE_KEY is set and COSIGN_PASSWORD is not: cosign needs the key's password")
    with tempfile.TemporaryDirectory(prefix="cosign-") as folder:
        config = str(Path(folder, "signing-config.json"))
        _cosign("signing-config", "create", *NO_SERVICES, "--out", config)
        _cosign("sign", "--yes", "--signing-config", config, "--key", "env://COSIGN_PRIVATE_KEY", image)


def _cosign(*arguments: str) -> None:
    """Run `cosign ARGUMENTS`. Raises ProjectError where there is no cosign, or it fails."""
    program = shutil.which("cosign")
    if program is None:
        raise ProjectError("cosign is not on PATH: https://docs.sigstore.dev/cosign/system_config/installation/")
    if status := relay([program, *arguments]):
        raise ProjectError(f"`cosign {arguments[0]}` ended with status {status}; the reason stands above")


if __name__ == "__main__":
    run(main)
