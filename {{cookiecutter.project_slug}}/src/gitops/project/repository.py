"""The settings of the repository on GitHub, and the calls that apply them. `make github` is github_setup.py.

The request bodies follow GitHub's REST description: https://docs.github.com/rest, under repos/rules,
actions/permissions, deployments/environments and deployments/branch-policies.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

TOPIC = "gitops-mlops"  # by which a cluster's platform finds the repository

#: Output of gh where GitHub does not allow a setting for this repository, and where something does not exist.
REFUSED = re.compile(r"\(HTTP (403|404|409|422)\)")
MISSING = re.compile(r"\(HTTP 404\)|Could not resolve to a Repository")


class Failed(Exception):
    """A call failed; the message holds the call and its output."""


@dataclass
class GitHub:
    """Calls of `gh` and `git`, each printed so that it can be copied. If not `live`, none is made."""

    repository: str
    live: bool
    open: list[str] = field(default_factory=list)  # what a person still has to do

    def run(self, *command: str, body: Any = None) -> str:
        """Make the call, with `body` as JSON on its standard input, and return its output. Raises Failed."""
        text = None
        if body is not None:
            text = json.dumps(body, indent=2 if len(json.dumps(body)) > 100 else None)
        print(shlex.join(command) + (f" <<'JSON'\n{text}\nJSON" if text else ""), flush=True)
        if not self.live:
            return ""
        never_ask = os.environ | {"GH_PROMPT_DISABLED": "1"}
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=never_ask)
        if done.returncode:
            raise Failed(f"`{shlex.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def read(self, *command: str, otherwise: Any) -> Any:
        """Return the JSON output of a call that reads; `otherwise` if the object does not exist or no call is made."""
        if not self.live:
            return otherwise
        try:
            return json.loads(self.run(*command))
        except Failed as error:
            if MISSING.search(str(error)):
                return otherwise
            raise

    def get(self, path: str, otherwise: Any) -> Any:
        return self.read("gh", "api", f"repos/{self.repository}/{path}", otherwise=otherwise)

    def send(self, method: str, path: str, body: Any) -> None:
        self.run("gh", "api", "--method", method, f"repos/{self.repository}/{path}", "--input", "-", body=body)

    def attempt(self, title: str, step: Callable[[], None], hint: str) -> None:
        """Run a step that GitHub may refuse, which `hint` explains. Raises Failed for any other failure."""
        print(f"\n# {title}")
        try:
            step()
        except Failed as error:
            if not REFUSED.search(str(error)):
                raise
            self.open.append(f"{title}: {error}\n  {hint}")
            print("# GitHub refuses this: see below")


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


def push(github: GitHub) -> None:
    """Push main unless origin has it; later changes are pull requests."""
    if github.live and github.run("git", "ls-remote", "origin", "refs/heads/main"):
        return
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


def protect(github: GitHub, approvals: int | None) -> None:
    """Create or update the rulesets. `approvals` None leaves their number unchanged, initially 0.

    Rulesets with these names are overwritten; your own rules belong in another ruleset, and GitHub applies both.
    """
    listed = github.get("rulesets?includes_parents=false&per_page=100", otherwise=[])
    present = {ruleset["name"]: ruleset["id"] for ruleset in listed}
    if approvals is None and "main" in present:
        approvals = required_approvals(github.get(f"rulesets/{present['main']}", otherwise={}))
    for ruleset in (rules_of_main(approvals or 0), rules_of_releases()):
        if ruleset["name"] in present:
            github.send("PUT", f"rulesets/{present[ruleset['name']]}", ruleset)
        else:
            github.send("POST", "rulesets", ruleset)


def required_approvals(ruleset: Any) -> int:
    """Return the number of approvals that the ruleset requires."""
    rules = [rule["parameters"] for rule in ruleset.get("rules", []) if rule["type"] == "pull_request"]
    return max((rule["required_approving_review_count"] for rule in rules), default=0)


def rules_of_main(approvals: int) -> dict[str, Any]:
    """Return the ruleset of main: changes need a pull request whose CI run has passed."""
    review = {
        "required_approving_review_count": approvals,
        "dismiss_stale_reviews_on_push": True,
        "require_code_owner_review": approvals > 0,  # .github/CODEOWNERS
        "require_last_push_approval": False,
        "required_review_thread_resolution": False,
        "allowed_merge_methods": ["merge", "squash"],
    }
    check = {"context": "pass", "integration_id": 15368}  # the last job of ci.yaml; 15368 is GitHub Actions
    checks = {"strict_required_status_checks_policy": True, "required_status_checks": [check]}
    more = [
        {"type": "pull_request", "parameters": review},
        {"type": "required_status_checks", "parameters": checks},
    ]
    return ruleset("main", "refs/heads/main", *more)


def rules_of_releases() -> dict[str, Any]:
    """Return the ruleset of the release branches: append-only, and CI and `make rollback` push without a pull request.

    env/production-next, which waits for a merge, is not part of the release log.
    """
    return ruleset("releases", "refs/heads/env/*", without=("refs/heads/env/*-next",))


def ruleset(name: str, branch: str, *more: dict[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "name": name,
        "target": "branch",
        "enforcement": "active",
        "bypass_actors": [],
        "conditions": {"ref_name": {"include": [branch], "exclude": list(without)}},
        "rules": [{"type": "deletion"}, {"type": "non_fast_forward"}, *more],
    }


def limit_deployments(github: GitHub, name: str) -> None:
    """Let only main deploy to the environment `name`. Its reviewers and wait timer are kept."""
    path = f"environments/{name}"
    present = github.get(path, otherwise={})
    named_branches = {"protected_branches": False, "custom_branch_policies": True}
    if present.get("deployment_branch_policy") != named_branches:
        github.send("PUT", path, {**protection(present), "deployment_branch_policy": named_branches})
    listed = github.get(f"{path}/deployment-branch-policies?per_page=100", otherwise={"branch_policies": []})
    right = False
    for policy in listed["branch_policies"]:
        if (policy["name"], policy.get("type", "branch")) == ("main", "branch"):
            right = True
        else:
            policy_path = f"repos/{github.repository}/{path}/deployment-branch-policies/{policy['id']}"
            github.run("gh", "api", "--method", "DELETE", policy_path)
    if not right:
        github.send("POST", f"{path}/deployment-branch-policies", {"name": "main", "type": "branch"})


def protection(environment: Any) -> dict[str, Any]:
    """Return the environment's protection as a request body: GitHub may remove what a request leaves out."""
    body: dict[str, Any] = {}
    for rule in environment.get("protection_rules", []):
        if rule["type"] == "wait_timer":
            body["wait_timer"] = rule["wait_timer"]
        elif rule["type"] == "required_reviewers":
            body["prevent_self_review"] = rule.get("prevent_self_review", False)
            body["reviewers"] = [{"type": one["type"], "id": one["reviewer"]["id"]} for one in rule["reviewers"]]
    return body
