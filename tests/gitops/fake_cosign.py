"""Stands in for the command `cosign` where an image is signed: it takes and refuses what cosign 3 does.

Read in https://github.com/sigstore/cosign, v3.0.6 to v3.1.2: cmd/cosign/cli/sign.go, signcommon/common.go (what may not
be combined, and where keyless signing gets its token), signingconfig/signingconfig.go, pkg/blob/load.go (`env://`),
generate/generate_key_pair.go (the password). Each signature is a line of the file that SIGNATURES names.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

PASSWORD = "the key's password"  # noqa: S105 it opens nothing
KEY = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"

#: The options of each command that are known here: whether one takes a value.
CREATE = {f"--no-default-{service}": False for service in ("fulcio", "oidc", "rekor", "tsa")} | {
    "--out": True,
    "--with-default-services": False,
}
SIGN = {"--yes": False, "--key": True, "--signing-config": True, "--tlog-upload": False, "--use-signing-config": False}


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:2] == ["signing-config", "create"]:
        options, rest = parse(arguments[2:], CREATE)
        create(options) if not rest else fail(f"unknown command {rest[0]!r}")
    elif arguments[:1] == ["sign"]:
        sign(*parse(arguments[1:], SIGN))
    else:
        fail(f"unknown command {' '.join(arguments[:2])!r} for cosign")


def parse(arguments: list[str], known: dict[str, bool]) -> tuple[dict[str, str], list[str]]:
    """Return options and arguments, as cobra parses them."""
    options, rest, waiting = {}, [], list(arguments)
    while waiting:
        name, _, value = waiting.pop(0).partition("=")
        if not name.startswith("-"):
            rest.append(name)
        elif name not in known:
            fail(f"unknown flag: {name}")
        else:
            options[name] = value or (waiting.pop(0) if known[name] else "true")
    return options, rest


def create(options: dict[str, str]) -> None:
    """Write a signing config. Without --with-default-services it names no service."""
    services = [] if "--with-default-services" not in options else ["fulcio", "oidc", "rekor", "tsa"]
    kept = [service for service in services if f"--no-default-{service}" not in options]
    Path(options["--out"]).write_text(json.dumps({"mediaType": "signingconfig.v0.2+json", "services": kept}))


def sign(options: dict[str, str], images: list[str]) -> None:
    config = options.get("--signing-config")
    used = config is not None or options.get("--use-signing-config", "true") == "true"
    if used and options.get("--tlog-upload", "true") != "true":
        fail("--tlog-upload=false is not supported with --signing-config or --use-signing-config.")
    services = json.loads(Path(config).read_text())["services"] if config else ["fulcio", "oidc", "rekor", "tsa"]
    if len(images) != 1 or not re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", images[0]):
        fail(f"signing {images}: a digest is needed")
    if key := options.get("--key"):
        name = key.removeprefix("env://")
        if name == key:
            fail(f"reading key: open {key}: no such file or directory")
        if name not in os.environ:
            fail(f"reading key: loading URL: env var ${name} not found")
        password = os.environ.get("COSIGN_PASSWORD", sys.stdin.read() if not sys.stdin.isatty() else "")
        if os.environ[name] != KEY or password != PASSWORD:
            fail("reading key: decrypt: encrypted: decryption failed")
        by = "key"
    elif "oidc" not in services or "fulcio" not in services:
        fail("no service of the signing config issues certificates")
    elif not os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"):
        fail("getting key from Fulcio: retrieving cert: error obtaining token: expired_token")
    else:
        by = "workflow"
    with open(os.environ["SIGNATURES"], "a", encoding="utf-8") as file:
        entry = {"image": images[0], "by": by, "services": services, "arguments": sys.argv[1:]}
        file.write(json.dumps(entry) + "\n")


def fail(message: str) -> NoReturn:
    sys.exit(f"Error: {message}")


if __name__ == "__main__":
    main()
