"""GitHub's REST interface, for fake_gh.py.

What it refuses, and the words, are GitHub's: https://docs.github.com/rest, and reports of people who met it (rulesets:
github.com/github/branch-deploy/pull/345; environments: github.com/integrations/terraform-provider-github/issues/1262,
with reviewers: github.com/backstage/backstage/issues/28977; deploy keys: github.com/vitodeploy/vito/issues/949).
"""

from __future__ import annotations

from fake_gh import REPOSITORIES, STATE, bare, fail, git

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BRANCH_GATE = "Fail to create protected rule, please ensure billing plan include protected branch gate."
REVIEWERS_GATE = (
    "Failed to create the environment protection rule. Please ensure the billing plan supports the required reviewers"
    " protection rule."
)

#: Each body: the fields that must be there, and those that may.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "rulesets": ({"name", "enforcement"}, {"target", "bypass_actors", "conditions", "rules"}),
    "actions/permissions": ({"enabled"}, {"allowed_actions", "sha_pinning_required"}),
    "actions/permissions/workflow": (set(), {"default_workflow_permissions", "can_approve_pull_request_reviews"}),
    "actions/permissions/fork-pr-contributor-approval": ({"approval_policy"}, set()),
    "environments": (set(), {"deployment_branch_policy", "wait_timer", "reviewers", "prevent_self_review"}),
    "deployment-branch-policies": ({"name"}, {"type"}),
    "keys": ({"key"}, {"title", "read_only"}),
    "team": (set(), {"permission"}),
}
#: GitHub's kinds of rules that can be in a ruleset of branches, of those that are used or could be mistaken for them.
RULES = {"creation", "update", "deletion", "non_fast_forward", "pull_request", "required_status_checks", "merge_queue"}


def api(method: str, path: str, body: Any) -> Any:
    root, *rest = path.partition("?")[0].split("/")
    if root == "apps":
        return {"id": 7, "slug": rest[0]}
    if root in ("users", "user"):
        return user(rest[0] if rest else "me", shows_plan=root == "user")
    if root == "orgs":
        return organization(method, rest, body)
    name = "/".join(rest[:2])
    found = REPOSITORIES.get(name) or fail("Not Found", 404)
    return repository(name, found, method, rest[2:], body)


def user(name: str, *, shows_plan: bool) -> Any:
    """Answer GET user and users/NAME. Only one's own account shows a plan, and only with the scope `user`."""
    shown = {"plan": {"name": STATE["plan"]}} if shows_plan and STATE["shows_plan"] else {}
    return {"login": STATE["me"] if name == "me" else name, "type": STATE["type"], **shown}


def organization(method: str, path: list[str], body: Any) -> Any:
    """Answer orgs/NAME, for its owners with the plan, and what is below orgs/NAME/teams."""
    if STATE["type"] != "Organization":
        fail("Not Found", 404)
    if len(path) == 1:
        return {"login": path[0]} | ({"plan": {"name": STATE["plan"]}} if STATE["shows_plan"] else {})
    team = STATE["teams"].get(path[2]) or fail("Not Found", 404)
    if len(path) == 3:
        return {"slug": path[2], "privacy": team["privacy"]}
    repository = "/".join(path[4:])
    if method == "PUT":
        if not STATE["owns"]:
            fail("Must have admin rights to Repository.", 403)
        team["repositories"][repository] = checked("team", body)["permission"]
        return None
    if repository not in team["repositories"]:
        fail("Not Found", 404)
    return {"permissions": {"pull": True, "push": team["repositories"][repository] == "push"}}


def repository(name: str, found: Any, method: str, path: list[str], body: Any) -> Any:
    """Answer what is below repos/OWNER/NAME."""
    private = found["visibility"] != "PUBLIC"
    free = private and STATE["plan"] == "free"
    owners = {"Organization": "Team", "User": "Pro"}[STATE["type"]]
    upgrade = f"Upgrade to GitHub {owners} or make this repository public to enable this feature."
    if path[0] == "rulesets":
        return fail(upgrade, 403) if free else rulesets(found["rulesets"], method, path[1:], body)
    if path[0] == "environments":
        return environments(found["environments"], method, path[1:], body, private=private)
    if path[0] == "keys":
        return keys(found["keys"], method, path[1:], body)
    if path[0] == "collaborators":
        return [{"login": login} for login in found["collaborators"]]
    if path[0] == "contents":
        import base64

        content = show(name, "/".join(path[1:])) or fail("Not Found", 404)
        return {"content": base64.encodebytes(content.encode()).decode()}
    key = "/".join(path)
    if key == "codeowners/errors":
        return {"errors": code_owner_errors(name)}
    if key == "actions/oidc/customization/sub":
        owner, _, short = name.partition("/")
        return {"use_default": True, "use_immutable_subject": True, "sub_claim_prefix": f"repo:{owner}@12/{short}@345"}
    if key not in FIELDS:
        fail("Not Found", 404)
    if method == "GET":
        return found.get(key) or fail("Not Found", 404)
    if key.endswith("fork-pr-contributor-approval") and private:
        fail("Fork PR approval is not allowed for private repositories.", 422)
    found[key] = checked(key, body)
    return None


def rulesets(kept: dict[str, Any], method: str, path: list[str], body: Any) -> Any:
    if method == "GET" and not path:
        return [{"id": int(number), "name": ruleset["name"]} for number, ruleset in kept.items()]
    if path and path[0] not in kept:
        fail("Not Found", 404)
    if method == "GET":
        return kept[path[0]]
    number = path[0] if path else str(100 + len(kept))
    if any(ruleset["name"] == body["name"] for other, ruleset in kept.items() if other != number):
        fail("Validation Failed\nName must be unique", 422)
    for actor in body["bypass_actors"]:
        key = actor["actor_type"] == "DeployKey" and actor["actor_id"] is None and actor["bypass_mode"] == "always"
        role = actor["actor_type"] == "RepositoryRole" and actor["actor_id"] in (2, 4, 5)
        if not key and not role:
            fail("Validation Failed\nActor is invalid", 422)
    if not {rule["type"] for rule in body["rules"]} <= RULES:
        fail("Invalid rule", 422)
    kept[number] = checked("rulesets", body)
    return kept[number]


def environments(kept: dict[str, Any], method: str, path: list[str], body: Any, *, private: bool) -> Any:
    name, *rest = path
    if not rest and method == "PUT":
        checked("environments", body)
        if private and STATE["plan"] == "free":
            fail(BRANCH_GATE, 422)
        if private and STATE["plan"] != "enterprise" and body.keys() & {"reviewers", "wait_timer"}:
            fail(REVIEWERS_GATE, 422)
        reviewers = [{"type": one["type"], "reviewer": {"id": one["id"]}} for one in body.get("reviewers") or []]
        timer = [{"type": "wait_timer", "wait_timer": body["wait_timer"]}] if body.get("wait_timer") else []
        kept[name] = {
            "deployment_branch_policy": body["deployment_branch_policy"],
            "protection_rules": [{"type": "required_reviewers", "reviewers": reviewers}] * bool(reviewers) + timer,
            "policies": kept.get(name, {}).get("policies", {}),
            "secret": kept.get(name, {}).get("secret", {}),
        }
    found = kept.get(name) or fail("Not Found", 404)
    if not rest:
        return found
    if not (found["deployment_branch_policy"] or {}).get("custom_branch_policies"):
        fail("Not Found", 404)
    policies = found["policies"]
    if method == "POST":
        policies[str(1 + max(map(int, policies), default=0))] = checked("deployment-branch-policies", body)
    elif method == "DELETE":
        del policies[rest[1]]
        return None
    return {"branch_policies": [{"id": int(number), **policy} for number, policy in policies.items()]}


def keys(kept: dict[str, Any], method: str, path: list[str], body: Any) -> Any:
    """Answer about deploy keys. An organisation that forbids them disables those that are there."""
    if method == "GET":
        return [{"id": int(number), "enabled": STATE["deploy_keys"], **key} for number, key in kept.items()]
    if method == "DELETE":
        del kept[path[0]]
        return None
    if not STATE["deploy_keys"]:
        fail("Validation Failed\nDeploy keys are disabled for this repository", 422)
    if not checked("keys", body)["key"].startswith("ssh-ed25519 "):
        fail("Validation Failed\nkey is invalid. You must supply a key in OpenSSH public key format", 422)
    if any(key["key"] == body["key"].strip() for key in kept.values()):
        fail("Validation Failed\nkey is already in use", 422)
    number = 1 + max(map(int, kept), default=0)
    kept[str(number)] = {"title": body["title"], "read_only": body["read_only"], "key": body["key"].strip()}
    return {"id": number}


def code_owner_errors(name: str) -> list[Any]:
    """Return an error for each line whose owner is an organisation, or a team without write access."""
    errors = []
    for number, line in enumerate(show(name, ".github/CODEOWNERS").splitlines(), 1):
        for owner in line.partition("#")[0].split()[1:]:
            account, _, slug = owner[1:].partition("/")
            team = STATE["teams"].get(slug, {"privacy": "secret", "repositories": {}})
            known = team["privacy"] != "secret" and team["repositories"].get(name) == "push"
            if not known if slug else STATE["type"] == "Organization" and account == name.partition("/")[0]:
                errors.append({"line": number, "kind": "Unknown owner", "suggestion": f"make sure {owner} exists"})
    return errors


def show(name: str, path: str) -> str:
    """Return a file of main; empty if it is not there."""
    return git("--git-dir", bare(name), "show", f"main:{path}")


def checked(key: str, body: Any) -> Any:
    must, may = FIELDS[key]
    if not must <= body.keys() <= must | may:
        fail(f"Invalid request: {sorted(body.keys() ^ must)}", 422)
    return body
