"""The repository on GitHub and its general settings. `make github` is github_setup.py.

The request bodies of `make github` follow GitHub's REST description: https://docs.github.com/rest, under repos/rules,
actions/permissions, deployments/environments, deployments/branch-policies, deploy-keys and teams.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from gitops.project.github_calls import Failed, GitHub

PROJECT = Path("pyproject.toml")
OVERLAY = Path("k8s/overlays/production/kustomization.yaml")
TOPIC = "gitops-mlops"  # by which a cluster's platform finds the repository


def origin() -> str:
    """Return the URL of the remote origin, or an empty text."""
    command = ["git", "config", "--get", "remote.origin.url"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def name_of(wanted: str | None, url: str) -> str:
    """Return OWNER/NAME: `wanted`, else origin's, else the image's owner and the project's name."""
    if wanted and not re.fullmatch(r"[\w-]+/[\w.-]+", wanted):
        sys.exit(f"error: --repository is {wanted}: OWNER/NAME would be right")
    host = re.escape(os.environ.get("GH_HOST", "github.com"))
    found = re.search(rf"(?:@|//){host}[:/]([\w-]+/[\w.-]+?)(?:\.git)?/?$", url)
    if found:
        if wanted and wanted.lower() != found[1].lower():
            sys.exit(f"error: --repository is {wanted}, but origin is {found[1]}: `git remote rename origin old`")
        return found[1]
    if wanted:
        return wanted
    if url:
        sys.exit(f"error: origin is {url}, not on GitHub: name the repository there with --repository OWNER/NAME")
    try:
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["name"]
        owner = re.search(r"newName: ghcr\.io/([\w-]+)/", OVERLAY.read_text(encoding="utf-8"))
    except OSError as error:
        sys.exit(f"error: {error}: run this in the project's folder")
    if owner is None:
        sys.exit(f"error: the image in {OVERLAY} is not on ghcr.io: give --repository OWNER/{project}")
    return f"{owner[1]}/{project}"


def create(github: GitHub, *, has_origin: bool, public: bool) -> bool:
    """Create the repository unless it exists, make it origin, and return whether it is public."""
    name = github.repository
    present = github.read("gh", "repo", "view", name, "--json", "url,visibility", otherwise=None)
    if present is None:
        source = () if has_origin else ("--source", ".", "--remote", "origin")
        github.run("gh", "repo", "create", name, "--public" if public else "--private", *source)
        return public
    if not has_origin:
        github.run("git", "remote", "add", "origin", str(present["url"]))
    if public and present["visibility"] != "PUBLIC":
        command = f"gh repo edit {name} --visibility public --accept-visibility-change-consequences"
        github.open.append(f"--public: the repository exists and is {present['visibility'].lower()}\n  `{command}`")
    return bool(present["visibility"] == "PUBLIC")


def is_pushed(github: GitHub) -> bool:
    """Return whether origin has main; from then on changes are pull requests."""
    return github.live and bool(github.run("git", "ls-remote", "origin", "refs/heads/main"))


def push(github: GitHub) -> None:
    """Push main for the first time."""
    try:
        github.run("git", "push", "--set-upstream", "origin", "main")
    except Failed as error:
        hint = "`gh auth setup-git` lets git log in as gh does, `gh auth refresh --scopes workflow` push workflows"
        raise Failed(f"{error}\n  {hint}") from error


def edit(github: GitHub) -> None:
    merging = ("--enable-squash-merge", "--enable-merge-commit", "--enable-rebase-merge=false")
    options = ("--default-branch", "main", "--add-topic", TOPIC, "--delete-branch-on-merge", *merging)
    github.run("gh", "repo", "edit", github.repository, *options)


def pin_actions(github: GitHub) -> None:
    """Allow only actions that are pinned to a commit; which actions are allowed is left unchanged."""
    path = "actions/permissions"
    allowed = github.get(path, otherwise={}).get("allowed_actions", "all")
    github.send("PUT", path, {"enabled": True, "allowed_actions": allowed, "sha_pinning_required": True})


def limit_token(github: GitHub, *, opens_pull_requests: bool) -> None:
    """Make a job's default token read-only. Opening pull requests and approving them is one setting."""
    body = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": opens_pull_requests}
    github.send("PUT", "actions/permissions/workflow", body)


def limit_forks(github: GitHub) -> None:
    body = {"approval_policy": "all_external_contributors"}
    github.send("PUT", "actions/permissions/fork-pr-contributor-approval", body)
