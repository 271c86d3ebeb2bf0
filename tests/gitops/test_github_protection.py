"""`make github`: what each plan and visibility has and lacks, and who may release: rulesets, environments, keys."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from defaults import ROOT
from github_laptop import Laptop, rules

BRANCHES = ("env/production", "env/staging", "env/production-next", "env/new", "main", "idea")


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    laptop = Laptop(tmp_path)
    laptop.install_cosign()
    return laptop


def may(repository: Any, action: str, branch: str, who: Any) -> bool:
    """Return whether GitHub lets `who` (an id of a role, or None for a deploy key) do `action` to the branch.

    `action` is a type of rule: what an active ruleset restricts is open to its bypass list alone, which is free of the
    whole ruleset; a merge of a pull request is an update that the rule `pull_request` lets through.
    """
    for ruleset in repository["rulesets"].values():
        names = ruleset["conditions"]["ref_name"]
        here = any(fnmatch(f"refs/heads/{branch}", pattern) for pattern in names["include"])
        here = here and not any(fnmatch(f"refs/heads/{branch}", pattern) for pattern in names["exclude"])
        blocking = {"merge": {"update"}, "update": {"update", "pull_request"}}.get(action, {action})
        restricted = (
            here and ruleset["enforcement"] == "active" and blocking & {rule["type"] for rule in ruleset["rules"]}
        )
        if restricted and who not in [actor["actor_id"] for actor in ruleset["bypass_actors"]]:
            return False
    return True


KEY, MAINTAIN, WRITE, ADMIN = None, 2, 4, 5


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
    # env/production holds no CODEOWNERS
    assert rules(laptop.repository, "promotions")["pull_request"]["require_code_owner_review"] is False


def test_environments_of_a_project_with_staging(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, staging=True)
    laptop.set_up()
    repository = laptop.repository
    assert repository["variable"].items() >= {"FIRST_ENVIRONMENT": "staging"}.items()
    assert repository["actions/permissions/workflow"]["can_approve_pull_request_reviews"] is True  # promote.yaml opens
    assert repository["environments"].keys() == {"staging", "rollback", "image"}  # those that a job stands in
    for environment in repository["environments"].values():
        assert [policy["name"] for policy in environment["policies"].values()] == ["main"]
    laptop.set_up()
    assert laptop.repository == repository


def test_the_releases_have_a_deploy_key(laptop: Laptop) -> None:
    """Its private half is a secret of the environments that release, and nowhere else."""
    printed = laptop.set_up()
    repository = laptop.repository
    [key] = repository["keys"].values()
    assert key["title"] == "releases of churn" and key["read_only"] is False
    secrets = {name: environment["secret"] for name, environment in repository["environments"].items()}
    private = secrets["production"]["RELEASE_KEY"]
    assert secrets["rollback"] == {"RELEASE_KEY": private} and "RELEASE_KEY" not in secrets["image"]
    assert repository["secret"] == {}
    file = laptop.temporary / "key"
    file.touch(mode=0o600)
    file.write_text(private + "\n")  # as actions/checkout writes it
    derived = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == key["key"].split()[:2]
    file.unlink()
    told = printed + str(laptop.calls)
    for secret in (*private.splitlines()[1:-1], *secrets["image"].values()):
        assert secret not in told
    assert list(laptop.temporary.iterdir()) == []
    assert all(path.is_dir() or private not in path.read_text("latin-1") for path in laptop.project.rglob("*"))


def test_the_jobs_find_their_secrets(laptop: Laptop) -> None:
    """In the environment that each stands in, and there is no other environment."""
    laptop.set_up()
    stand: dict[str, set[str]] = {}
    for path in (ROOT / ".github/workflows").glob("*.yaml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            if "environment" in job:
                name = job["environment"]["name"]
                name = "production" if "vars.FIRST_ENVIRONMENT || 'production'" in name else name
                stand[name] = set(re.findall(r"secrets\.((?:RELEASE|COSIGN)_\w+)", str(job)))
    assert stand == {name: set(each["secret"]) for name, each in laptop.repository["environments"].items()}


def test_keys_are_made_once_and_again_where_they_are_lost(laptop: Laptop) -> None:
    laptop.set_up()
    first = laptop.repository
    laptop.set_up()
    assert laptop.repository == first

    laptop.change_repository(lambda repository: repository["environments"]["rollback"]["secret"].clear())
    laptop.set_up()
    again = laptop.repository
    [key] = again["keys"].values()
    assert key != next(iter(first["keys"].values()))
    assert again["environments"]["rollback"]["secret"] == again["environments"]["production"]["secret"]
    assert again["environments"]["image"] == first["environments"]["image"]


def test_another_key_that_may_write_is_named(laptop: Laptop) -> None:
    """GitHub's bypass list has all deploy keys or none."""
    laptop.set_up()
    other = {"title": "old server", "read_only": False, "key": "ssh-ed25519 AAAA"}
    reader = {"title": "mirror", "read_only": True, "key": "ssh-ed25519 BBBB"}
    laptop.change_repository(lambda repository: repository["keys"].update({"7": other, "8": reader}))
    printed = laptop.set_up()
    assert re.search(r"# Note: .*deploy key.*`old server`", printed) and "mirror" not in printed


def test_an_organisation_that_forbids_deploy_keys(laptop: Laptop) -> None:
    """Releases are pushed with the job's token then, which no bypass list can hold: the branches stay open to it."""
    laptop.change(type="Organization", deploy_keys=False)
    error = laptop.refused()
    assert (
        "Deploy keys are disabled for this repository" in error and "whoever has write access can push env/*" in error
    )
    repository = laptop.repository
    assert repository["keys"] == {} and may(repository, "update", "env/production", WRITE)
    assert not may(repository, "deletion", "env/production", ADMIN)
    assert all("RELEASE_KEY" not in each["secret"] for each in repository["environments"].values())

    laptop.change(deploy_keys=True)
    laptop.set_up()
    assert not may(laptop.repository, "update", "env/production", WRITE)
    laptop.change(deploy_keys=False)  # GitHub disables the key with it
    laptop.refused()
    assert may(laptop.repository, "update", "env/production", WRITE)


def test_without_ssh_keygen_the_rest_is_set(laptop: Laptop) -> None:
    laptop.environment["PATH"] = str(laptop.bin)
    (laptop.bin / "git-upload-pack").symlink_to("/usr/bin/git-upload-pack")
    (laptop.bin / "cosign").unlink()
    error = laptop.refused()
    assert "ssh-keygen is not on PATH" in error
    assert rules(laptop.repository, "main") and may(laptop.repository, "update", "env/production", WRITE)


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


@pytest.mark.parametrize("plan", ["free", "team"])
def test_a_private_repository_signs_with_a_key(laptop: Laptop, plan: str) -> None:
    """The free plan has no environments, so that its secrets are the repository's."""
    laptop.change(plan=plan)
    printed = laptop.set_up()
    repository = laptop.repository
    secrets = repository["secret"] if plan == "free" else repository["environments"]["image"]["secret"]
    assert secrets["COSIGN_PRIVATE_KEY"] == f"private half, under {secrets['COSIGN_PASSWORD']}"
    assert len(secrets["COSIGN_PASSWORD"]) > 40
    assert repository["variable"]["COSIGN_PUBLIC_KEY"] == "public half" and "public half" in printed
    assert re.search(r"# +set +secret +COSIGN_PASSWORD", printed)
    laptop.set_up()
    assert laptop.repository == repository


def test_a_key_of_the_repository_is_named_once_there_are_environments(laptop: Laptop) -> None:
    laptop.change(plan="free")
    laptop.set_up()
    key = laptop.repository["variable"]
    laptop.change(plan="pro")
    assert re.search(r"# Note: Any branch's workflow can read COSIGN_PRIVATE_KEY", laptop.set_up())
    assert laptop.repository["variable"] == key  # what a cluster's policy knows


def test_without_cosign_images_stay_unsigned_which_is_said(laptop: Laptop) -> None:
    (laptop.bin / "cosign").unlink()
    assert re.search(r"# Note: Images stay unsigned.*cosign", laptop.set_up())
    assert laptop.repository["environments"]["image"]["secret"] == {}
    laptop.install_cosign()
    assert "unsigned" not in laptop.set_up()
    assert laptop.repository["environments"]["image"]["secret"].keys() == {"COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"}


def test_a_public_repository_needs_no_key_for_signatures(laptop: Laptop) -> None:
    (laptop.bin / "cosign").unlink()
    assert "unsigned" not in laptop.set_up("--public")


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
    for name in ("rollback", "image"):
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
