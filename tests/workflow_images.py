"""Stand-ins for what builds, pushes and signs images: a build takes the bytes of what the Containerfile copies."""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_machine import Failed

if TYPE_CHECKING:
    from workflow_job import JobRun

#: cosign for the steps of a job: like the real one it signs with a key that it was given, or else with an identity that
#: the job has to have, which a public log then holds.
COSIGN = """#!/bin/sh
case "$*" in
  sign*--key*env://COSIGN_PRIVATE_KEY*)
    test -n "$COSIGN_PRIVATE_KEY" -a -n "$COSIGN_PASSWORD" || { echo "no key, or no password" >&2; exit 1; } ;;
  sign\\ *)
    test -n "$ACTIONS_ID_TOKEN_REQUEST_URL" || { echo "no id-token: this job may not have one" >&2; exit 1; } ;;
esac
echo "$@" >> '%s'
"""


def log_in(job: JobRun, inputs: dict[str, str]) -> None:
    """Sign in to a registry."""
    if not inputs["username"] or not inputs["password"]:
        raise Failed("username or password is empty")
    if inputs["password"] in job.hub.tokens:
        job.need("packages", "write")
    job.registries.add(inputs["registry"])


def build_and_push(job: JobRun, inputs: dict[str, str]) -> dict[str, str]:
    """Take the bytes of what the Containerfile copies for the image, whose digest is that of these bytes."""
    if inputs["context"] != "." or inputs["push"] != "true":
        raise Failed(f"not understood: {inputs}")
    files = copied(job.workspace, job.workspace / inputs["file"])
    if not files:
        raise Failed(f"{inputs['file']} copies nothing")
    bytes_of = (f"{file.relative_to(job.workspace)}\0".encode() + file.read_bytes() for file in sorted(files))
    digest = f"sha256:{hashlib.sha256(b''.join(bytes_of)).hexdigest()}"
    known = re.findall(r"(?m)^ARG (.*)", (job.workspace / inputs["file"]).read_text())
    for argument in inputs["build-args"].splitlines():
        name, _, value = argument.partition("=")
        if not value or name not in " ".join(known).split():
            raise Failed(f"{argument!r} is no argument of {inputs['file']}")
    for tag in inputs["tags"].splitlines():
        if tag.partition("/")[0] not in job.registries or not re.fullmatch(r"[a-z0-9./-]+:[\w.-]+", tag):
            raise Failed(f"denied: {tag}")
        job.hub.images[tag] = digest
    return {"digest": digest}


def install_cosign(job: JobRun, inputs: dict[str, str]) -> None:
    """Put a cosign on PATH that writes its arguments to hub.signatures."""
    program = job.temporary / "bin/cosign"
    program.parent.mkdir(exist_ok=True)
    program.write_text(COSIGN % job.hub.signatures)
    program.chmod(0o755)
    job.path.append(str(program.parent))


def copied(context: Path, containerfile: Path) -> set[Path]:
    """Return the files that a Containerfile copies from its context. Raises Failed where there is nothing to copy."""
    if not containerfile.is_file():
        raise Failed(f"{containerfile} is missing")
    ignore = context / ".dockerignore"
    rules = [line for line in ignore.read_text().splitlines() if line and line[0] != "#"] if ignore.exists() else []
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", containerfile.read_text()))
    files: set[Path] = set()
    for line in text.splitlines():
        instruction, *words = line.split() or [""]
        if instruction.upper() not in ("COPY", "ADD") or any(word.startswith("--from=") for word in words):
            continue
        for source in [word for word in words if not word.startswith("--")][:-1]:
            matches = [file for path in context.glob(source) for file in (path, *path.rglob("*")) if file.is_file()]
            if not (kept := {file for file in matches if not ignored(file.relative_to(context), rules)}):
                raise Failed(f"{line}: {source} is not in the context")
            files |= kept
    return files


def ignored(path: Path, rules: list[str]) -> bool:
    """Tell whether .dockerignore leaves a file out: the last rule decides that fits it or a folder that it lies in."""
    result = False
    for rule in rules:
        pattern = rule.removeprefix("!").strip("/")
        parts = pattern.removeprefix("**/").split("/")
        if "**" in parts:
            raise Failed(f".dockerignore: {rule} is not understood here")
        starts = range(len(path.parts)) if pattern.startswith("**/") else (0,)
        if any(_fits(path.parts[start:], parts) for start in starts):
            result = not rule.startswith("!")
    return result


def _fits(names: tuple[str, ...], parts: list[str]) -> bool:
    return len(parts) <= len(names) and all(map(fnmatchcase, names, parts))
