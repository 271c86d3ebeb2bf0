"""Set up this project's repository on GitHub, with the command `gh`: https://cli.github.com.

    make github ARGS="--variable TRAINING_RUNNER=gpu"   idempotent: can be run again at any time
    make github ARGS=--print                            prints the commands for a new repository and runs none

Each call is printed before it is made. Settings that GitHub refuses because of the plan, the visibility or a rule of
the organisation are listed at the end, with exit status 1, and the others are applied. Any other failure ends the
command.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

from gitops.project import command, repository
from gitops.project.repository import Failed, GitHub

PROJECT = Path("pyproject.toml")
OVERLAY = Path("k8s/overlays/production/kustomization.yaml")
STAGING = Path("k8s/overlays/staging")

#: Variables that the workflows read, and their purpose. A test compares the names with .github/.
VARIABLES = {
    "TRAINING_RUNNER": "label of the runner that trains; without it a runner of GitHub's, which has no GPU",
    "MLFLOW_TRACKING_URI": "tracking server of the runs; without it their record is lost when the job ends",
    "MLFLOW_TRACKING_USERNAME": "user of the tracking server, if it requires one",
    "AWS_ROLE_ARN": "s3:// remote: role that may read and write the bucket",
    "AWS_REGION": "s3:// remote: region of the bucket",
    "GCP_WORKLOAD_IDENTITY_PROVIDER": "gs:// remote: full name of the identity provider",
    "GCP_SERVICE_ACCOUNT": "gs:// remote: account that may read and write the bucket",
    "AZURE_CLIENT_ID": "azure:// remote: application that may read and write the container",
    "AZURE_TENANT_ID": "azure:// remote: tenant of the application",
    "AZURE_SUBSCRIPTION_ID": "azure:// remote: subscription of the container",
    "AZURE_STORAGE_ACCOUNT": "azure:// remote: storage account of the container",
    "REQUEST_LOG": "address of the request log, such as s3://bucket/prefix; without it nothing is monitored",
    "LABELS": "address of the labels; without it performance in production is not measured",
    "APP_ID": "GitHub App that opens the pull requests of retrainings, so that their checks start automatically",
    "REGISTRY_USERNAME": "user who pushes the image, if its registry is not ghcr.io",
    "TRAIN_ON_MAIN": "1: main trains again; without it a branch's model is released, whatever it was trained on",
    "FIRST_ENVIRONMENT": "environment that a merge is released to: set to staging here, if the project has that",
}
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "password of MLFLOW_TRACKING_USERNAME",
    "APP_PRIVATE_KEY": "private key of the GitHub App APP_ID",
    "REGISTRY_PASSWORD": "password of REGISTRY_USERNAME",
}

#: Workflows that open pull requests, which a setting of GitHub must allow.
OPENING = [Path(".github/workflows") / name for name in ("promote.yaml", "retrain.yaml")]

ORGANISATION = "You have to be an administrator, and an organisation may decide this for all its repositories."
PLAN = "Rules and environments need a public repository or a paid plan, and you have to be an administrator."


def main() -> None:
    options = parse()
    url = origin()
    github = GitHub(name_of(options.repository, url), live=not options.print and shutil.which("gh") is not None)
    try:
        set_up(github, options, has_origin=bool(url))
    except Failed as error:
        sys.exit(f"error: {error}")
    if not github.live and not options.print:
        sys.exit("error: gh is not on PATH, so nothing was done: install it, or copy the commands above")
    if github.open:
        sys.exit("\n".join(f"error: {line}" for line in github.open))


def parse() -> argparse.Namespace:
    """Return the options, with `variables` as a dictionary. Exits where one is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--repository", metavar="OWNER/NAME", help="(default: origin's, else the image's owner and the project's name)"
    )
    parser.add_argument("--public", action="store_true", help="create it as a public repository")
    approvals = "approvals that a pull request needs (default: unchanged, initially 0)"
    parser.add_argument("--approvals", type=int, choices=range(11), metavar="N", help=approvals)
    parser.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="can be given repeatedly")
    parser.add_argument("--print", action="store_true", help="print the commands and run none")
    options = parser.parse_args()
    options.variables = dict(item.partition("=")[::2] for item in options.variable)
    for name, value in options.variables.items():
        if name in SECRETS:
            parser.error(f"{name} is a secret and must not be on a command line: `gh secret set {name}` prompts for it")
        if name not in VARIABLES:
            parser.error(f"--variable {name}: no workflow reads it; they read {', '.join(VARIABLES)}")
        if not value:
            parser.error(f"--variable {name} has no value: {name}=VALUE would be right")
        if re.search(r"://[^/]*@", value):
            parser.error(
                f"--variable {name} holds a password, but variables can be read by anyone who can read the logs"
            )
    return options


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


def set_up(github: GitHub, options: argparse.Namespace, *, has_origin: bool) -> None:
    """Run every step, in the order that a new repository needs. Raises Failed."""
    print(f"# Repository {github.repository}")
    try:
        github.run("gh", "auth", "status")
    except Failed as error:
        raise Failed(f"{error}\n  Log in: `gh auth login --scopes workflow`") from error
    public = repository.create(github, has_origin=has_origin, public=options.public)
    repository.push(github)
    repository.edit(github)
    attempt = github.attempt
    attempt("Only actions that are pinned to a commit", lambda: repository.pin_actions(github), ORGANISATION)
    opens = [path.name for path in OPENING if path.exists()]
    title = "A read-only token" + (f"; {', '.join(opens)} may open pull requests" if opens else "")
    attempt(title, lambda: repository.limit_token(github, opens_pull_requests=bool(opens)), ORGANISATION)
    if public:  # nobody outside can open a pull request in a private repository
        attempt(
            "Workflow runs of outside contributors wait for approval",
            lambda: repository.limit_forks(github),
            ORGANISATION,
        )
    attempt("Rules of the branches", lambda: repository.protect(github, options.approvals), PLAN)
    environments = ["staging", "production"] if STAGING.is_dir() else ["production"]
    for name in environments:
        attempt(f"Only main deploys to {name}", partial(repository.limit_deployments, github, name), PLAN)
    first = {"FIRST_ENVIRONMENT": "staging"} if STAGING.is_dir() else {}
    for name, value in (first | options.variables).items():
        github.run("gh", "variable", "set", name, "--repo", github.repository, "--body", value)
    print_summary(github)


def print_summary(github: GitHub) -> None:
    """Print the variables and secrets, whether each is set, and the next step."""
    print("\n# Variables and secrets that the workflows read; all are optional")
    for kind, names in (("variable", VARIABLES), ("secret", SECRETS)):
        listed = github.read("gh", kind, "list", "--repo", github.repository, "--json", "name", otherwise=[])
        present = {item["name"] for item in listed}
        for name, purpose in names.items():
            state = "set" if name in present else "not set" if github.live else ""
            print(f"#   {state:8}{kind:10}{name:32}{purpose}")
    print("# A variable: make github ARGS='--variable NAME=VALUE'")
    print(f"# A secret, with a prompt: gh secret set NAME --repo {github.repository}")
    first = "git switch --create idea, change params.yaml, commit, git push origin idea, gh pr create --fill"
    print(f"# Next: {first}", flush=True)


if __name__ == "__main__":
    command.run(main)
