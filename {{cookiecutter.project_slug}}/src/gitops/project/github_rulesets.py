"""The rulesets of main and of the release branches.

Who is on a ruleset's bypass list is free of all its rules, so each list stands with the rules that it is meant for:

main            nobody bypasses it
releases        env/* is append-only, for everybody
release writers only the releases' deploy key, and people who maintain the repository, push to env/*
promotions      with staging: env/production changes by pull request, except for the same
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gitops.project.github_calls import GitHub, is_github_com

#: GitHub's ids of repository roles: https://github.com/github/rest-api-description/issues/7111
MAINTAIN, ADMIN = 2, 5

#: Any deploy key with write access: GitHub has no way to name one.
DEPLOY_KEY = {"actor_id": None, "actor_type": "DeployKey", "bypass_mode": "always"}

PRODUCTION = "refs/heads/env/production"
RELEASES = "refs/heads/env/*"
PROPOSALS = "refs/heads/env/*-next"  # a promotion that waits for its merge is not part of the release log


def protect(github: GitHub, *, review: dict[str, Any], staging: bool, key: bool, organization: bool) -> None:
    """Create or update the rulesets. Without a `key` that can release, nobody is kept from updating env/*.

    Rulesets with these names are overwritten; your own rules belong in another ruleset, and GitHub applies both.
    """
    wanted = [rules_of_main(github, review), ruleset("releases", [RELEASES], ["deletion", "non_fast_forward"])]
    writers = [DEPLOY_KEY, *(role(number) for number in ((MAINTAIN, ADMIN) if organization else (ADMIN,)))]
    update: Any = {"type": "update", "parameters": {"update_allows_fetch_and_merge": False}}
    without = [PROPOSALS, PRODUCTION] if staging else [PROPOSALS]
    restricted = [ruleset("release writers", [RELEASES], ["creation", update], without=without, bypass=writers)]
    if staging:
        # The message of a squash names the commit of main, on which Argo CD reports; that of a merge commit does not.
        own = {"require_code_owner_review": False, "allowed_merge_methods": ["squash"]}
        approvals = {"type": "pull_request", "parameters": review | own}
        restricted += [ruleset("promotions", [PRODUCTION], ["creation", approvals], bypass=writers)]
    present = by_name(github)
    for each in restricted:
        if key:
            wanted.append(each)
        elif each["name"] in present:
            print("# The releases have no deploy key, and would be refused by this ruleset")
            wanted.append(each | {"enforcement": "disabled"})
    for each in wanted:
        if each["name"] in present:
            github.send("PUT", f"rulesets/{present[each['name']]}", each)
        else:
            github.send("POST", "rulesets", each)


def by_name(github: GitHub) -> dict[str, int]:
    """Return the ids of the repository's own rulesets."""
    listed = github.get("rulesets?includes_parents=false&per_page=100", otherwise=[])
    return {each["name"]: each["id"] for each in listed}


def review(present: Any, *, approvals: int | None, second_person: bool, owners_can_approve: bool) -> dict[str, Any]:
    """Return what a pull request into main needs.

    `present` is main's ruleset as it is. Approvals are those that are given, else as many as before, and one at least
    where a second person has write access. Code owners have to approve where that cannot lock a change out.
    """
    rules = [rule["parameters"] for rule in present.get("rules", []) if rule["type"] == "pull_request"]
    if approvals is None:
        before = max((rule["required_approving_review_count"] for rule in rules), default=0)
        approvals = max(before, int(second_person))
    by_owners = owners_can_approve or any(rule["require_code_owner_review"] for rule in rules)
    return {
        "required_approving_review_count": approvals,
        "dismiss_stale_reviews_on_push": True,
        "require_code_owner_review": approvals > 0 and by_owners,  # .github/CODEOWNERS
        "require_last_push_approval": False,
        "required_review_thread_resolution": False,
        "allowed_merge_methods": ["merge", "squash"],
    }


def rules_of_main(github: GitHub, review: dict[str, Any]) -> dict[str, Any]:
    """Return the ruleset of main: changes need a pull request whose CI run has passed."""
    check = {"context": "pass"} | actions_app(github)  # the last job of ci.yaml
    checks = {"strict_required_status_checks_policy": True, "required_status_checks": [check]}
    rules: list[Any] = ["deletion", "non_fast_forward", {"type": "pull_request", "parameters": review}]
    return ruleset("main", ["refs/heads/main"], [*rules, {"type": "required_status_checks", "parameters": checks}])


def actions_app(github: GitHub) -> dict[str, int]:
    """Return the id of GitHub Actions' app, whose check counts: a GitHub Enterprise Server has an id of its own."""
    if is_github_com():
        return {"integration_id": 15368}
    app = github.read("gh", "api", "apps/github-actions", otherwise={})
    return {"integration_id": app["id"]} if "id" in app else {}


def role(number: int) -> dict[str, Any]:
    return {"actor_id": number, "actor_type": "RepositoryRole", "bypass_mode": "always"}


def ruleset(
    name: str,
    branches: Sequence[str],
    rules: Sequence[Any],
    *,
    without: Sequence[str] = (),
    bypass: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    return {
        "name": name,
        "target": "branch",
        "enforcement": "active",
        "bypass_actors": list(bypass),
        "conditions": {"ref_name": {"include": list(branches), "exclude": list(without)}},
        "rules": [{"type": rule} if isinstance(rule, str) else rule for rule in rules],
    }
