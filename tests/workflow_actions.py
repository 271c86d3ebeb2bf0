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
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_hub import Cache
from workflow_images import build_and_push, install_cosign, log_in
from workflow_machine import Failed

if TYPE_CHECKING:
    from workflow_job import JobRun

Inputs = dict[str, str]


def check_out(job: JobRun, inputs: Inputs) -> None:
    """Fetch the event's commit alone, or with `fetch-depth: 0` every branch.

    Credentials are left behind only where the job is there to push: its token, or the deploy key that it was given.
    """
    job.need("contents")
    persistent = inputs.get("persist-credentials", "true") == "true"
    if persistent and job.permissions.get("contents") != "write":
        raise Failed("persist-credentials is not false: every later step could push")
    if not persistent and inputs.get("ssh-key"):
        raise Failed("the key is given, and taken away before it is used")
    ref, sha = job.event.ref, job.event.sha
    if branch := inputs.get("ref"):
        ref, sha = f"refs/heads/{branch}", job.hub.git("rev-parse", f"refs/heads/{branch}")
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
    if persistent:  # what the hook of the hub's repository sees of who pushes
        who = f"HUB_KEY='{key}'" if (key := inputs.get("ssh-key")) else f"HUB_TOKEN={job.token}"
        job.git("config", "remote.origin.receivepack", f"{who} git-receive-pack")


def set_up_uv(job: JobRun, inputs: Inputs) -> None:
    """Nothing but speed: the project's make gets uv itself. Its cache, of packages alone, is this machine's.

    Where the cache is on, the environments of the job before are here already. Their stamps say whether they still fit.
    """
    kept = job.hub.folder / "environments"
    if inputs.get("enable-cache") != "true":
        return
    locks = b"".join(path.read_bytes() for path in sorted(job.workspace.glob(inputs["cache-dependency-glob"])))
    cache = Cache(job.event.ref, f"setup-uv-{hashlib.sha256(locks).hexdigest()}")
    if cache not in job.hub.restorable(job.event.ref):
        job.hub.caches.append(cache)
    if kept.exists():
        kept.rename(job.workspace / ".venv")

    def keep() -> None:
        if (job.workspace / ".venv").exists():
            (job.workspace / ".venv").rename(kept)

    job.always_after.append(keep)


def upload_artifact(job: JobRun, inputs: Inputs) -> None:
    """Keep the files under `path`, from the folder on that all entries of `path` have in common; no hidden ones.

    The name may be there already, of an earlier attempt of the run: an error but for `overwrite`.
    Source: https://github.com/actions/upload-artifact/blob/main/docs/MIGRATION.md
    """
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
        raise Failed("(409) Conflict: an artifact with this name already exists on the workflow run")
    for file in found:
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def download_artifact(job: JobRun, inputs: Inputs) -> None:
    """Copy an artifact of this run, or with a token that may read them one of another run."""
    run = job.run.id
    if "run-id" in inputs:
        job.need("actions")
        if job.hub.tokens.get(inputs["github-token"]) != job.permissions:
            raise Failed("Bad credentials")
        run = int(inputs["run-id"])
    source = job.hub.artifact(run, inputs["name"])
    if not source.exists():
        raise Failed(f"Artifact not found for name: {inputs['name']}")
    shutil.copytree(source, job.workspace / inputs["path"], dirs_exist_ok=True)


def sign_in(job: JobRun, inputs: Inputs) -> None:
    """Exchange the run's own token for a cloud's, where the cloud trusts its subject with the role."""
    job.need("id-token", "write")
    if not all(inputs.values()):
        raise Failed(f"an input is empty: {inputs}")
    role = next(inputs[name] for name in ("role-to-assume", "service_account", "client-id") if name in inputs)
    if not re.fullmatch(job.hub.roles.get(role, ".*"), job.subject):
        raise Failed(f"Not authorized to perform sts:AssumeRoleWithWebIdentity: {job.subject} as {role}")
    job.exported["CLOUD_ROLE"] = role


def nothing(job: JobRun, inputs: Inputs) -> None:
    """What is installed here is on the machine, or not needed."""


#: Action: what stands in for it, and the inputs that it knows. None for actions/cache: forks can restore what it keeps.
ACTIONS: dict[str, tuple[Callable[[JobRun, Inputs], dict[str, str] | None], set[str]]] = {
    "actions/checkout": (check_out, {"fetch-depth", "persist-credentials", "ref", "ssh-key"}),
    "astral-sh/setup-uv": (set_up_uv, {"enable-cache", "cache-dependency-glob"}),
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
    "sigstore/cosign-installer": (install_cosign, set()),
}
