"""What the actions do that the workflows use, as far as the steps after them can tell.

Each stand-in gets the job and the step's inputs, does its part in the job's workspace or in the hub, and returns its
outputs. It raises Failed where the action would fail. Inputs that it does not know are an error of the test.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow_runner import JobRun

Inputs = dict[str, str]

#: cosign for the steps of a job: like the real one it signs only with a token for the signing service.
COSIGN = """#!/bin/sh
test -n "$ACTIONS_ID_TOKEN_REQUEST_URL" || { echo "no id-token: this job may not have one" >&2; exit 1; }
echo "$@" >> '%s'
"""


class Failed(Exception):
    """The step fails, with this as its output."""


def check_out(job: JobRun, inputs: Inputs) -> None:
    """Fetch the event's commit alone, or with `fetch-depth: 0` every branch, and leave no credentials behind."""
    _need(job, "contents")
    if inputs.get("persist-credentials") != "false":
        raise Failed("persist-credentials is not false: every later step could push")
    ref, sha = job.event.ref, job.event.sha
    local = ref.replace("refs/heads/", "refs/remotes/origin/").replace("refs/pull/", "refs/remotes/pull/")
    depth = inputs.get("fetch-depth", "1")
    job.git("init", "--quiet", "--initial-branch=main")
    job.git("remote", "add", "origin", str(job.hub.origin))
    if depth == "0":
        job.git("fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    # The branch may have moved on since the event: the job sees it where it was.
    job.git("fetch", "--quiet", *([] if depth == "0" else [f"--depth={depth}"]), "origin", f"+{sha}:{local}")
    branch = ref.removeprefix("refs/heads/")
    job.git("checkout", "--quiet", "--force", *(["-B", branch] if branch != ref else ["--detach"]), local)


def set_up_uv(job: JobRun, inputs: Inputs) -> None:
    """Nothing but speed: the project's make gets uv itself, and its cache is this machine's.

    Where the cache is on, the environments of the job before are here already. Their stamps say whether they still fit.
    """
    kept = job.hub.folder / "environments"
    if inputs.get("enable-cache") != "true":
        return
    if kept.exists():
        kept.rename(job.workspace / ".venv")

    def keep() -> None:
        if (job.workspace / ".venv").exists():
            (job.workspace / ".venv").rename(kept)

    job.always_after.append(keep)


def restore_cache(job: JobRun, inputs: Inputs) -> dict[str, str]:
    """Restore from this ref's caches or else from main's. Main never reads those of a pull request."""
    path, key = job.workspace / inputs["path"], inputs["key"]
    wanted = [rf"{re.escape(key)}", *(rf"{re.escape(start)}.*" for start in inputs.get("restore-keys", "").split())]
    scopes = dict.fromkeys((job.event.ref, "refs/heads/main"))
    newest = list(reversed(job.hub.caches))
    fitting = (
        entry
        for scope in scopes
        for pattern in wanted
        for entry in newest
        if entry.scope == scope and re.fullmatch(pattern, entry.key)
    )
    if hit := next(fitting, None):
        shutil.copytree(hit.folder, path, dirs_exist_ok=True)

    return {"cache-hit": "true" if hit and hit.key == key else "false", "cache-primary-key": key}


def save_cache(job: JobRun, inputs: Inputs) -> None:
    """Save under a new key of this branch; what is not there is not saved, which is a warning only."""
    path = job.workspace / inputs["path"]
    if path.exists():
        job.hub.save_cache(job.event.ref, inputs["key"], path)


def upload_artifact(job: JobRun, inputs: Inputs) -> None:
    """Keep the files under `path`, from the folder on that all entries of `path` have in common; no hidden ones."""
    paths = [job.workspace / line.strip() for line in inputs["path"].split("\n") if line.strip()]
    root = Path(os.path.commonpath(paths))
    root = root.parent if root.is_file() else root
    found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    if not found:
        if inputs.get("if-no-files-found") == "error":
            raise Failed("no files were found")
        return
    target = job.hub.artifact(job.run.id, inputs["name"])
    if inputs.get("overwrite") == "true":
        shutil.rmtree(target, ignore_errors=True)
    if target.exists():
        raise Failed(f"the run has an artifact {inputs['name']} already")
    for file in found:
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def download_artifact(job: JobRun, inputs: Inputs) -> None:
    """Copy an artifact of another run."""
    _need(job, "actions")
    if job.hub.tokens.get(inputs["github-token"]) != job.permissions:
        raise Failed("Bad credentials")
    source = job.hub.artifact(int(inputs["run-id"]), inputs["name"])
    if not source.exists():
        raise Failed(f"Artifact not found for name: {inputs['name']}")
    shutil.copytree(source, job.workspace / inputs["path"])


def sign_in(job: JobRun, inputs: Inputs) -> None:
    """Exchange the run's own token for a cloud's; the run's record holds that it was asked for."""
    _need(job, "id-token", "write")
    if not all(inputs.values()):
        raise Failed(f"an input is empty: {inputs}")


def log_in(job: JobRun, inputs: Inputs) -> None:
    """Sign in to a registry."""
    if not inputs["username"] or not inputs["password"]:
        raise Failed("username or password is empty")
    if inputs["password"] in job.hub.tokens:
        _need(job, "packages", "write")
    job.registries.add(inputs["registry"])


def build_and_push(job: JobRun, inputs: Inputs) -> dict[str, str]:
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


def attest(job: JobRun, inputs: Inputs) -> None:
    """Record where an image of the registry came from."""
    _need(job, "id-token", "write")
    _need(job, "attestations", "write")
    pushed = [digest for tag, digest in job.hub.images.items() if tag.rpartition(":")[0] == inputs["subject-name"]]
    if inputs["subject-digest"] not in pushed:
        raise Failed(f"{inputs['subject-name']} has no {inputs['subject-digest']}")


def install_cosign(job: JobRun, inputs: Inputs) -> None:
    """Put a cosign on PATH that writes its arguments to hub.signatures."""
    program = job.temporary / "bin/cosign"
    program.parent.mkdir(exist_ok=True)
    program.write_text(COSIGN % job.hub.signatures)
    program.chmod(0o755)
    job.path.append(str(program.parent))


def nothing(job: JobRun, inputs: Inputs) -> None:
    """What is installed here is on the machine, or not needed."""


#: Action: what stands in for it, and the inputs that it knows.
ACTIONS: dict[str, tuple[Callable[[JobRun, Inputs], dict[str, str] | None], set[str]]] = {
    "actions/checkout": (check_out, {"fetch-depth", "persist-credentials"}),
    "astral-sh/setup-uv": (set_up_uv, {"enable-cache", "cache-dependency-glob"}),
    "actions/cache/restore": (restore_cache, {"path", "key", "restore-keys"}),
    "actions/cache/save": (save_cache, {"path", "key"}),
    "actions/upload-artifact": (upload_artifact, {"name", "path", "if-no-files-found", "overwrite", "retention-days"}),
    "actions/download-artifact": (download_artifact, {"name", "path", "run-id", "github-token"}),
    "iterative/setup-cml": (nothing, {"version", "vega"}),
    "aws-actions/configure-aws-credentials": (sign_in, {"role-to-assume", "aws-region"}),
    "google-github-actions/auth": (sign_in, {"workload_identity_provider", "service_account"}),
    "azure/login": (sign_in, {"client-id", "tenant-id", "subscription-id"}),
    "docker/login-action": (log_in, {"registry", "username", "password"}),
    "docker/setup-buildx-action": (nothing, set()),
    "docker/build-push-action": (
        build_and_push,
        {"context", "file", "push", "tags", "build-args", "sbom", "provenance"},
    ),
    "actions/attest": (attest, {"subject-name", "subject-digest", "push-to-registry", "create-storage-record"}),
    "sigstore/cosign-installer": (install_cosign, set()),
}


def _need(job: JobRun, permission: str, level: str = "read") -> None:
    """Fail as GitHub does where the job's token lacks a permission."""
    if job.permissions.get(permission) not in (level, "write"):
        raise Failed(f"Resource not accessible by integration: {permission}: {level} is missing")


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
