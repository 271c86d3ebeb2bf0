"""`make github`: what each plan and visibility has and lacks, and who may change which branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from github_laptop import ADMIN, KEY, MAINTAIN, WRITE, Laptop, may, rules


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    laptop = Laptop(tmp_path)
    laptop.install_cosign()
    return laptop


@pytest.mark.parametrize("organization", [False, True])
@pytest.mark.parametrize("staging", [False, True])
def test_who_may_change_which_branch(tmp_path: Path, organization: bool, staging: bool) -> None:
    laptop = Laptop(tmp_path, staging=staging)
    laptop.change(type="Organization" if organization else "User")
    laptop.set_up()
    repository = laptop.repository
    for action in ("update", "creation"):
        for branch in ("env/production", "env/staging", "env/new"):
            assert may(repository, action, branch, KEY) and may(repository, action, branch, ADMIN)
            assert may(repository, action, branch, MAINTAIN) is organization  # a person's repository has no such role
            assert not may(repository, action, branch, WRITE)
        assert may(repository, action, "env/production-next", WRITE) and may(repository, action, "idea", WRITE)
    for action in ("deletion", "non_fast_forward"):  # the release log is append-only, for those on a bypass list too
        for who in (KEY, MAINTAIN, WRITE, ADMIN):
            assert not may(repository, action, "env/production", who) and not may(repository, action, "main", who)
    assert may(repository, "merge", "env/production", WRITE) is staging
    assert not may(repository, "merge", "env/staging", WRITE)
    assert not may(repository, "update", "main", ADMIN) and may(repository, "merge", "main", WRITE)


def test_a_promotion_needs_the_approvals_of_main(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, staging=True)
    laptop.set_up("--approvals", "2")
    for name in ("main", "promotions"):
        assert rules(laptop.repository, name)["pull_request"]["required_approving_review_count"] == 2
    promotions = rules(laptop.repository, "promotions")["pull_request"]
    assert promotions["require_code_owner_review"] is False  # env/production holds no CODEOWNERS
    assert promotions["allowed_merge_methods"] == ["squash"]  # a merge commit's message has no commit of main


def test_environments_of_a_project_with_staging(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, staging=True)
    laptop.set_up()
    repository = laptop.repository
    assert repository["variable"].items() >= {"FIRST_ENVIRONMENT": "staging"}.items()
    assert repository["actions/permissions/workflow"]["can_approve_pull_request_reviews"] is True  # promote.yaml opens
    assert repository["environments"].keys() == {"staging", "rollback", "main"}  # those that a job stands in
    for environment in repository["environments"].values():
        assert [policy["name"] for policy in environment["policies"].values()] == ["main"]
    laptop.set_up()
    assert laptop.repository == repository


@pytest.mark.parametrize(
    ("plan", "shows_plan", "visibility", "owner", "lacks", "rulesets"),
    [
        ("free", True, (), "User", ["Rulesets", "Environments", "Code owners", "Required reviewers"], 0),
        ("free", False, (), "Organization", ["Rulesets", "Environments", "Code owners", "Required reviewers"], 0),
        ("pro", False, (), "User", ["Required reviewers"], 3),
        ("team", True, (), "Organization", ["Required reviewers"], 3),
        ("enterprise", True, (), "Organization", [], 3),
        ("enterprise", False, (), "Organization", ["Required reviewers"], 3),  # nothing that is refused would tell
        ("free", False, ("--public",), "User", [], 3),
    ],
)
def test_what_a_plan_lacks_is_said_and_the_rest_is_set(
    laptop: Laptop,
    plan: str,
    shows_plan: bool,
    visibility: tuple[str, ...],
    owner: str,
    lacks: list[str],
    rulesets: int,
) -> None:
    """That is no failure. A login without the scope to see the plan gets it from what GitHub refuses."""
    laptop.change(plan=plan, type=owner, shows_plan=shows_plan)
    printed = laptop.set_up("--variable", "TRAINING_RUNNER=gpu", *visibility)
    missing = printed.partition("# Missing on this plan; releases work all the same")[2]
    for part in ("Rulesets", "Environments", "Code owners", "Required reviewers"):
        assert (f"#   {part}" in missing) is (part in lacks), part
    assert ("push to main without a pull request" in printed) is ("Rulesets" in lacks)
    repository = laptop.repository
    assert len(repository["rulesets"]) == rulesets and bool(repository["environments"]) is bool(rulesets)
    assert repository["actions/permissions"]["sha_pinning_required"] is True
    assert repository["variable"]["TRAINING_RUNNER"] == "gpu"


def test_reviewers_stay_where_releases_wait_and_go_where_nothing_may(laptop: Laptop) -> None:
    laptop.set_up()
    reviewers = [{"type": "Team", "reviewer": {"id": 7}}]
    rule = {"type": "required_reviewers", "prevent_self_review": True, "reviewers": reviewers}

    def tighten(repository: Any) -> None:
        repository["topics"].append("churn")
        repository["actions/permissions"]["allowed_actions"] = "selected"
        for environment in repository["environments"].values():
            environment |= {"deployment_branch_policy": None, "protection_rules": [rule]}
        repository["environments"]["rollback"]["protection_rules"] = [{"type": "wait_timer", "wait_timer": 30}]

    laptop.change_repository(tighten)
    laptop.set_up()
    repository = laptop.repository
    [kept] = repository["environments"]["production"]["protection_rules"]
    assert kept["reviewers"] == reviewers
    for name in ("rollback", "main"):
        assert repository["environments"][name]["protection_rules"] == []
    assert repository["topics"] == ["churn", "gitops-mlops"]
    assert repository["actions/permissions"]["allowed_actions"] == "selected"


def test_the_subject_of_cloud_tokens_is_printed(laptop: Laptop) -> None:
    """A new repository's has ids in it, which no document can know."""
    assert "begin with repo:team@12/churn@345\n" in laptop.set_up()


def test_the_check_of_an_enterprise_server_is_its_own_apps(laptop: Laptop) -> None:
    laptop.environment["GH_HOST"] = "github.example"
    laptop.git("remote", "add", "origin", "https://github.example/team/churn.git")
    settings = Path(laptop.environment["GIT_CONFIG_GLOBAL"])
    settings.write_text(settings.read_text().replace("https://github.com/", "https://github.example/"))
    settings.write_text(settings.read_text() + "  insteadOf = https://github.com/\n")
    laptop.set_up()
    [check] = rules(laptop.repository, "main")["required_status_checks"]["required_status_checks"]
    assert check == {"context": "pass", "integration_id": 7}
