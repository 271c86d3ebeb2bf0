"""Artifacts of this repository's workflow runs, by name (https://docs.github.com/en/rest/actions/artifacts)."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.integrations import github
from gitops.integrations.github import GitHub

#: Seconds without a byte.
TIMEOUT = 60

#: Bytes of one file, at most.
LARGEST = 2**33


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
        _fetch(client, f"actions/artifacts/{int(newest['id'])}/zip", archive)
        try:
            with zipfile.ZipFile(archive) as contents:
                for file in set(files) & {*contents.namelist()}:
                    if contents.getinfo(file).file_size > LARGEST:
                        raise ProjectError(f"{file} in the artifact {name} is larger than {LARGEST >> 30} GiB")
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    with contents.open(file) as source, (folder / file).open("wb") as target:
                        shutil.copyfileobj(source, target)
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise ProjectError(f"the artifact {name} cannot be unpacked: {error}") from error
    return True


def _of_this_repository(artifact: dict[str, Any]) -> bool:
    of = artifact.get("workflow_run") or {}
    return of.get("repository_id") is not None and of["repository_id"] == of.get("head_repository_id")


def _fetch(client: GitHub, path: str, target: Path) -> None:
    """Write what GitHub redirects to into `target`. The token goes to GitHub alone: its storage refuses it."""
    address = client.redirect(path)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (OSError, ValueError) as error:  # its text may hold the address, which is a key
        reason = error.code if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        raise ProjectError(f"{path} cannot be downloaded: GitHub's storage answers {reason}") from None
