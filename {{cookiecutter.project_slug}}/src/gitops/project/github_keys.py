"""Keys that `make github` makes: the releases' deploy key, and a private repository's key for signing images.

Both are made in a folder that is removed at once, and go from its files to GitHub, so that no command line, log or
variable of this shell holds them. A key that is there is not made again: delete it on GitHub, and run this again.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from gitops.project.github_calls import GitHub, Refused
from gitops.project.github_environments import MAIN

RELEASE_KEY = "RELEASE_KEY"
SIGNING = ("COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD")
PUBLIC_KEY = "COSIGN_PUBLIC_KEY"


def release_key(github: GitHub, environments: Sequence[str]) -> None:
    """Make the deploy key with which the jobs in `environments` push env/*. Raises Refused without ssh-keygen."""
    title = f"releases of {github.repository.rpartition('/')[2]}"
    listed = [key for key in github.get("keys?per_page=100", otherwise=[]) if not key["read_only"]]
    ours = [key for key in listed if key["title"] == title]
    others = [f"`{key['title']}`" for key in listed if key["title"] != title]
    if others:
        github.notes.append(f"Every deploy key with write access can push env/*, also {', '.join(others)}")
    secret_there = all(RELEASE_KEY in github.names("secret", "--env", name) for name in environments)
    if secret_there and any(key.get("enabled", True) for key in ours):
        return
    if github.live and shutil.which("ssh-keygen") is None:
        raise Refused("ssh-keygen is not on PATH")
    with github.private_folder() as folder:
        path = f"{folder}/release"
        github.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", title, "-f", path)
        fields = ("-f", f"title={title}", "-F", f"key=@{path}.pub", "-F", "read_only=false")
        github.run("gh", "api", "--method", "POST", f"repos/{github.repository}/keys", *fields)
        for name in environments:
            store(github, RELEASE_KEY, path, name)
    for key in ours:  # only now: until the secrets are new, jobs use the key before
        github.delete(f"keys/{key['id']}")


def signing_key(github: GitHub, *, environment: bool) -> None:
    """Make the key that signs a private repository's images, as secrets of the environment `main` if there is one.

    A public repository on github.com needs none: its images are signed by the workflow's identity, in a public log.
    """
    place = ("--env", MAIN) if environment else ()
    in_repository = github.names("secret") if environment else set()
    if set(SIGNING) <= in_repository:
        names = " and ".join(SIGNING)
        github.notes.append(f"Any branch's workflow can read {names}: delete these secrets and run this again")
        return
    if set(SIGNING) <= github.names("secret", *place) and PUBLIC_KEY in github.names("variable"):
        return
    if github.live and shutil.which("cosign") is None:
        github.notes.append(
            "Images stay unsigned, since cosign is not on PATH: install it"
            " (https://docs.sigstore.dev/cosign/system_config/installation) and run this again"
        )
        return
    with github.private_folder() as folder:
        password = f"{folder}/password"
        if github.live:
            Path(password).write_text(secrets.token_urlsafe(32), encoding="utf-8")
        print(f"# {password} is random")
        if not github.live:
            print(f'openssl rand -hex 32 > "{password}"')
        command = ("cosign", "generate-key-pair", "--output-key-prefix", f"{folder}/cosign")
        github.run(*command, secrets={"COSIGN_PASSWORD": password})
        for name, path in zip(SIGNING, (f"{folder}/cosign.key", password), strict=True):
            store(github, name, path, *place[1:])
        public = f"{folder}/cosign.pub"
        github.run("gh", "variable", "set", PUBLIC_KEY, "--repo", github.repository, file=public)
        if github.live:
            print(f"# A cluster's policy checks signatures with {PUBLIC_KEY}:\n{Path(public).read_text()}", end="")


def store(github: GitHub, name: str, path: str, environment: str = "") -> None:
    """Set a secret of the environment, or of the repository, to the content of a file."""
    place = ("--env", environment) if environment else ()
    github.run("gh", "secret", "set", name, "--repo", github.repository, *place, file=path)
