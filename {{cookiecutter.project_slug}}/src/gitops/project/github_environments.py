"""GitHub's environments, which hold a job's secrets and say which branch may use them."""

from __future__ import annotations

from typing import Any

from gitops.project.github_calls import GitHub

MAIN, ROLLBACK = "main", "rollback"

#: Jobs in these never wait for a person or a timer: reviewers are for releases, and a rollback is never held up.
UNATTENDED = (MAIN, ROLLBACK)


def limit_to_main(github: GitHub, name: str) -> None:
    """Let only main use the environment `name`. Its reviewers and wait timer stay, unless its jobs must not wait."""
    path = f"environments/{name}"
    present = github.get(path, otherwise={})
    kept = protection(present)
    named_branches = {"protected_branches": False, "custom_branch_policies": True}
    waits = name in UNATTENDED and bool(kept)
    if waits:
        print(f"# {name} has reviewers or a wait timer, which would hold up its jobs: they are removed")
        kept = {"wait_timer": 0, "reviewers": None}
    if waits or present.get("deployment_branch_policy") != named_branches:
        github.send("PUT", path, {**kept, "deployment_branch_policy": named_branches})
    listed = github.get(f"{path}/deployment-branch-policies?per_page=100", otherwise={"branch_policies": []})
    right = False
    for policy in listed["branch_policies"]:
        if (policy["name"], policy.get("type", "branch")) == ("main", "branch"):
            right = True
        else:
            github.delete(f"{path}/deployment-branch-policies/{policy['id']}")
    if not right:
        github.send("POST", f"{path}/deployment-branch-policies", {"name": "main", "type": "branch"})


def protection(environment: Any) -> dict[str, Any]:
    """Return the environment's protection as a request body: GitHub may remove what a request leaves out.

    Only what there is: a plan without reviewers and wait timers refuses the mere mention of one.
    """
    body: dict[str, Any] = {}
    for rule in environment.get("protection_rules", []):
        if rule["type"] == "wait_timer":
            body["wait_timer"] = rule["wait_timer"]
        elif rule["type"] == "required_reviewers":
            body["prevent_self_review"] = rule.get("prevent_self_review", False)
            body["reviewers"] = [{"type": one["type"], "id": one["reviewer"]["id"]} for one in rule["reviewers"]]
    return body
