"""What the owner's plan and the repository's visibility allow, and what each missing part leaves open.

https://docs.github.com/get-started/learning-about-github/githubs-plans
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from gitops.project.github_calls import Failed, GitHub

#: GitHub's answer to a request for what the plan lacks.
UPGRADE = re.compile(r"Upgrade to GitHub \w+", re.IGNORECASE)

#: Parts of GitHub that a private repository lacks on the free plan, and what is open without them.
PAID = {
    "Rulesets": "whoever has write access can push to main without a pull request or the check `pass`, rewrite its"
    " history, and change or delete env/*, which is what the cluster runs",
    "Environments": "any branch's workflow can use all secrets, and name the environment `main`: let a cloud trust the"
    " claim `ref` too (docs/system-design.md, Cloud roles)",
    "Code owners": "nobody has to approve a change of .github/, k8s/ or src/gitops/",
}
ENTERPRISE = {
    "Required reviewers and wait timers": "a release cannot wait for a person: whoever may merge, releases",
}


@dataclass(frozen=True)
class Plan:
    """What GitHub offers for this repository."""

    name: str  # the owner's plan; empty where GitHub does not say
    organization: bool  # whether an organisation owns the repository
    public: bool
    rules: bool = True  # rulesets, environments and code owners

    @property
    def reviewers(self) -> bool:
        """Whether environments can have required reviewers and wait timers, as far as GitHub says."""
        return self.public or self.name.startswith(("enterprise", "business"))

    @property
    def lacks(self) -> dict[str, str]:
        """Return what is missing, with what that leaves open."""
        return ({} if self.rules else PAID) | ({} if self.reviewers else ENTERPRISE)


def ask(github: GitHub, *, public: bool) -> Plan:
    """Return the plan, as far as the API shows it. Where no call is made: all of it, for a person."""
    if not github.live:
        return Plan("", organization=False, public=public)
    account = github.read("gh", "api", f"users/{github.owner}", otherwise={})
    organization = account.get("type") == "Organization"
    plan = Plan(name_of_plan(github, organization=organization), organization, public)
    if public:
        return plan
    try:
        github.get("rulesets?includes_parents=false&per_page=100", otherwise=[])
    except Failed as error:
        if not UPGRADE.search(str(error)):
            raise
        plan = replace(plan, rules=False)
    return plan


def name_of_plan(github: GitHub, *, organization: bool) -> str:
    """Return the name of the owner's plan, if the login may see it: gh's own may not, unless it has more scopes."""
    account: Any = github.read("gh", "api", f"orgs/{github.owner}" if organization else "user", otherwise={})
    if not organization and str(account.get("login", "")).lower() != github.owner.lower():
        return ""
    return str(account.get("plan", {}).get("name", ""))


def show(plan: Plan) -> None:
    """Print what the plan has."""
    owner = "organisation" if plan.organization else "person"
    visibility = "public" if plan.public else "private"
    named = f"plan {plan.name}" if plan.name else "plan not shown to this login"
    print(f"\n# A {visibility} repository of a{'n' if plan.organization else ''} {owner}; {named}")
    for names, present in ((PAID, plan.rules), (ENTERPRISE, plan.reviewers)):
        for name in names:
            print(f"#   {'has' if present else 'lacks':8}{name}")


def show_lacks(plan: Plan) -> None:
    """Print what the plan lacks, and what that leaves open."""
    if not plan.lacks:
        return
    print("\n# Missing on this plan; releases work all the same")
    for name, consequence in plan.lacks.items():
        print(f"#   {name}: {consequence}")
    if not plan.rules:
        print(
            "# GitHub Pro, Team or Enterprise has these, and a public repository has all of them; then run this again."
        )
