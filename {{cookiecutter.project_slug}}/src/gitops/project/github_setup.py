"""Set up this project's repository on GitHub, with the command `gh`: https://cli.github.com.

    make github ARGS="--variable TRAINING_RUNNER=gpu"   idempotent: can be run again at any time
    make github ARGS=--print                            prints the commands for a new repository and runs none

Each call is printed before it is made. What the plan lacks is listed, with what that leaves open, and is no failure:
the rest is set, and releases work. Settings that GitHub refuses for another reason, such as a rule of the organisation,
are listed at the end, with exit status 1, and the others are applied. Any other failure ends the command.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from gitops.project import (
    command,
    github_environments,
    github_keys,
    github_owners,
    github_plan,
    github_rulesets,
    github_variables,
    repository,
)
from gitops.project.github_calls import Failed, GitHub, is_github_com
from gitops.project.github_plan import Plan
from gitops.project.github_variables import KEYS, SECRETS, VARIABLES

STAGING = Path("k8s/overlays/staging")

#: Workflows that open pull requests, which a setting of GitHub must allow.
OPENING = [Path(".github/workflows") / name for name in ("locks.yaml", "promote.yaml", "retrain.yaml")]

ORGANISATION = "You have to be an administrator, and an organisation may decide this for all its repositories."
ADMINISTRATOR = "You have to be an administrator of the repository."
DEPLOY_KEYS = (
    "An organisation may forbid deploy keys, as new ones do: Settings, Member privileges, Deploy keys. Without a key"
    " the job's own token releases, and whoever has write access can push env/*. Allow them, and run this again."
)
TEAM = (
    "Its members are asked to review, once it exists, can be seen and may write; you may have to own the organisation."
)


def main() -> None:
    options = parse()
    url = repository.origin()
    github = GitHub(
        repository.name_of(options.repository, url), live=not options.print and shutil.which("gh") is not None
    )
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
    approvals = "approvals that a pull request needs (default: 1 at least where a second person has write access)"
    parser.add_argument("--approvals", type=int, choices=range(11), metavar="N", help=approvals)
    parser.add_argument(
        "--team", metavar="NAME", help="team of the organisation that owns the code: .github/CODEOWNERS"
    )
    parser.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="can be given repeatedly")
    parser.add_argument("--print", action="store_true", help="print the commands and run none")
    options = parser.parse_args()
    options.variables = dict(item.partition("=")[::2] for item in options.variable)
    for name, value in options.variables.items():
        if name in KEYS:
            parser.error(f"{name} is a secret, which `make github` makes itself")
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


def set_up(github: GitHub, options: argparse.Namespace, *, has_origin: bool) -> None:
    """Run every step, in the order that a new repository needs. Raises Failed."""
    print(f"# Repository {github.repository}")
    try:
        github.run("gh", "auth", "status")
    except Failed as error:
        raise Failed(f"{error}\n  Log in: `gh auth login --scopes workflow`") from error
    public = repository.create(github, has_origin=has_origin, public=options.public)
    plan = github_plan.ask(github, public=public)
    if github.live:
        github_plan.show(plan)
    else:
        print(
            "# For a plan that has everything; of a private repository the free one refuses rulesets and environments"
        )
    pushed = repository.is_pushed(github)
    people: list[str] = []
    listing = partial(github_owners.add_writers, github, people)
    github.attempt("People who have write access", listing, ADMINISTRATOR)
    name_owners(github, options.team, plan, people, pushed=pushed)
    first = {"FIRST_ENVIRONMENT": "staging"} if STAGING.is_dir() else {}
    github_variables.set_variables(github, first | options.variables)
    if not pushed:
        repository.push(github)
    repository.edit(github)
    limit_actions(github, plan)
    environments = protect(github, options.approvals, plan, people) if plan.rules else []
    if not public or not is_github_com():  # only github.com's tokens can sign without a key
        make = partial(github_keys.signing_key, github, environment=github_environments.MAIN in environments)
        github.attempt("A key that signs images", make, ADMINISTRATOR)
    github_variables.show(github, environments)
    github_plan.show_lacks(plan)
    for note in github.notes:
        print(f"# Note: {note}")
    change = "git switch --create idea, change params.yaml, commit, git push origin idea, gh pr create --fill"
    print(f"# Next: {change}", flush=True)


def name_owners(github: GitHub, team: str | None, plan: Plan, people: list[str], *, pushed: bool) -> None:
    """Let CODEOWNERS name a team of the organisation, or everybody who has write access to a person's repository."""
    owners = [f"@{github.owner}", *(f"@{name}" for name in people if name.lower() != github.owner.lower())]
    if plan.organization:
        team = github_owners.choose_team(github, team)
        owners = [f"@{github.owner}/{team}"]
        check = partial(github_owners.check_team, github, str(team))
        if team is None or not github.attempt(f"The team {team} owns the code", check, TEAM):
            return
    elif team:
        raise Failed(f"--team {team}: {github.owner} is a person, and only an organisation has teams")
    if github.live and (plan.organization or len(owners) > 1):
        github_owners.name_owners(github, owners, pushed=pushed)


def limit_actions(github: GitHub, plan: Plan) -> None:
    """Let workflows do no more than they need."""
    attempt = github.attempt
    attempt("Only actions that are pinned to a commit", lambda: repository.pin_actions(github), ORGANISATION)
    opens = [path.name for path in OPENING if path.exists()]
    title = "A read-only token" + (f"; {', '.join(opens)} may open pull requests" if opens else "")
    attempt(title, lambda: repository.limit_token(github, opens_pull_requests=bool(opens)), ORGANISATION)
    if plan.public:  # nobody outside can open a pull request in a private repository
        title = "Workflow runs of outside contributors wait for approval"
        attempt(title, lambda: repository.limit_forks(github), ORGANISATION)


def protect(github: GitHub, approvals: int | None, plan: Plan, people: list[str]) -> list[str]:
    """Make environments, the releases' key and the rulesets, and return the environments that are there."""
    releasing = ["staging" if STAGING.is_dir() else "production", github_environments.ROLLBACK]
    wanted = [*releasing, github_environments.MAIN]
    environments = []
    for name in wanted:
        limit = partial(github_environments.limit_to_main, github, name)
        if github.attempt(f"Only main uses the environment {name}", limit, ADMINISTRATOR):
            environments.append(name)
    key = False
    if environments == wanted:
        make = partial(github_keys.release_key, github, releasing)
        key = github.attempt("The deploy key of the releases", make, DEPLOY_KEYS)

    def rulesets() -> None:
        main = github_rulesets.by_name(github).get("main")
        review = github_rulesets.review(
            github.get(f"rulesets/{main}", otherwise={}) if main else {},
            approvals=approvals,
            second_person=len(people) > 1,
            owners_can_approve=github_owners.can_approve(github),
        )
        say_who_approves(github, review)
        staging, organization = STAGING.is_dir(), plan.organization
        github_rulesets.protect(github, review=review, staging=staging, key=key, organization=organization)

    github.attempt("Rules of the branches", rulesets, ADMINISTRATOR)
    return environments


def say_who_approves(github: GitHub, review: dict[str, Any]) -> None:
    number = review["required_approving_review_count"]
    print(f"# A pull request into main needs {number} approval{'' if number == 1 else 's'}: ARGS='--approvals N'")
    if number and not review["require_code_owner_review"]:
        github.notes.append(
            f"Code owners need not approve: {github_owners.CODEOWNERS} on main has to name a team, or two people, in"
            " each line, since nobody can approve a change of their own; then run this again"
        )


if __name__ == "__main__":
    command.run(main)
