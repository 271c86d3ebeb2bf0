"""Artifacts of workflow runs, by name (https://docs.github.com/en/rest/actions/artifacts)."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from gitops.core.artifacts import ProjectError
from gitops.integrations import github
from gitops.integrations.github import GitHub

#: Seconds without a byte; bytes that are read at once.
TIMEOUT, CHUNK = 60, 2**20

#: Bytes of one file, at most; of an artifact that is read from a stranger's run, packed.
LARGEST, PACKED = 2**33, 2**26

#: What reading an archive raises that is none, or is damaged.
UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)

#: How GitHub packs, and the bit of an encrypted file.
PACKING, ENCRYPTED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), 1


class Expired(ProjectError):
    """The artifact was there, and GitHub has removed it."""


def available() -> bool:
    """Tell whether this is a job of GitHub Actions that may ask for artifacts."""
    return bool(os.environ.get("GITHUB_REPOSITORY") and os.environ.get("GITHUB_TOKEN"))


def download(name: str, folder: Path, files: Collection[str]) -> bool:
    """Write those of `files` that the newest artifact `name` holds into `folder`; tell whether there is one.

    Artifacts of a fork's runs do not count: this repository lists them too. Raises ProjectError.
    """
    client = github.connect()
    listed = client.every("actions/artifacts", "artifacts", name=name)
    own = [artifact for artifact in listed if not artifact["expired"] and _of_this_repository(artifact)]
    if not own:
        return False
    newest = max(own, key=lambda artifact: str(artifact["created_at"]))
    with tempfile.TemporaryDirectory(prefix="artifact-") as temporary:
        archive = Path(temporary, "artifact.zip")
        with archive.open("wb") as target:
            _fetch(client, f"actions/artifacts/{int(newest['id'])}/zip", target, LARGEST)
        try:
            with zipfile.ZipFile(archive) as contents:
                for file in set(files) & {*contents.namelist()}:
                    if contents.getinfo(file).file_size > LARGEST:
                        raise ProjectError(f"{file} in the artifact {name} is larger than {LARGEST >> 30} GiB")
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    with contents.open(file) as source, (folder / file).open("wb") as unpacked:
                        shutil.copyfileobj(source, unpacked)
        except UNREADABLE as error:
            raise ProjectError(f"the artifact {name} cannot be unpacked: {error}") from error
    return True


def read(client: GitHub, run: int, name: str, files: Mapping[str, int]) -> dict[str, bytes]:
    """Return the contents of those of `files` that a run's artifact `name` holds; `files` maps paths to sizes at most.

    The artifact is a stranger's: nothing is written, no more is read than asked for, and only regular files are.
    Empty where the run has no such artifact. Raises Expired, and ProjectError where the artifact is refused.
    """
    listed = client.every(f"actions/runs/{run}/artifacts", "artifacts", name=name)
    if not listed:
        return {}
    newest = max(listed, key=lambda artifact: str(artifact["created_at"]))
    if newest["expired"]:
        raise Expired(f"the artifact {name} of run {run} has expired")
    with tempfile.TemporaryFile() as archive:
        _fetch(client, f"actions/artifacts/{int(newest['id'])}/zip", archive, PACKED)
        try:
            with zipfile.ZipFile(archive) as contents:
                members = [member for member in contents.infolist() if member.filename in files]
                if len(members) != len({member.filename for member in members}):
                    raise ProjectError(f"the artifact {name} holds a file twice")
                return {member.filename: _member(contents, member, files[member.filename]) for member in members}
        except UNREADABLE as error:
            raise ProjectError(f"the artifact {name} cannot be unpacked: {error}") from error


def _member(contents: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """Return a regular file of an archive, of which no more is unpacked than `limit`. Raises ProjectError."""
    refusal = f"{member.filename} in the artifact: a regular file of at most {limit:,} bytes is needed"
    regular = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
    if not regular or member.compress_type not in PACKING or member.flag_bits & ENCRYPTED:
        raise ProjectError(refusal)
    with contents.open(member) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ProjectError(refusal)
    return content


def _of_this_repository(artifact: dict[str, Any]) -> bool:
    of = artifact.get("workflow_run") or {}
    return of.get("repository_id") is not None and of["repository_id"] == of.get("head_repository_id")


def _fetch(client: GitHub, path: str, target: IO[bytes], limit: int) -> None:
    """Write what GitHub redirects to into `target`, `limit` bytes at most. Raises ProjectError.

    The token goes to GitHub alone: its storage refuses it.
    """
    address = client.redirect(path)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            while chunk := answer.read(CHUNK):
                if target.tell() + len(chunk) > limit:
                    raise ProjectError(f"{path} is larger than {limit >> 20:,} MiB")
                target.write(chunk)
    except (OSError, ValueError) as error:  # its text may hold the address, which is a key
        reason = error.code if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        raise ProjectError(f"{path} cannot be downloaded: GitHub's storage answers {reason}") from None
