"""`make github`: approvals, and the code owners who give them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT
from github_laptop import CODEOWNERS, NAME, OWNED, Laptop, rules

TEAM = {"reviewers": {"privacy": "closed", "repositories": {}}}


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


@pytest.fixture
def organization(laptop: Laptop) -> Laptop:
    laptop.change(type="Organization", teams=TEAM)
    return laptop


def review(laptop: Laptop) -> tuple[int, bool]:
    """Return how many approvals main needs, and whether a code owner's is among them."""
    rule: Any = rules(laptop.repository, "main")["pull_request"]
    return rule["required_approving_review_count"], rule["require_code_owner_review"]


def join(laptop: Laptop, *people: str) -> None:
    laptop.change_repository(lambda repository: repository["collaborators"].extend(people))


def owners(laptop: Laptop, revision: str = "") -> str:
    return laptop.git("show", f"{revision}:{CODEOWNERS}") if revision else (laptop.project / CODEOWNERS).read_text()


def merge(laptop: Laptop) -> None:
    """What is in the work tree gets to main on GitHub."""
    laptop.git("add", CODEOWNERS)
    laptop.git("commit", "--quiet", "--message", "Merged")
    laptop.git("push", "--quiet", "origin", "main")


def test_one_person_needs_nobody(laptop: Laptop) -> None:
    laptop.set_up()
    assert review(laptop) == (0, False) and owners(laptop) == OWNED


def test_a_second_person_approves_and_shares_the_code(laptop: Laptop) -> None:
    """Owners have to approve once main names two: until then the only one could not change a file of theirs."""
    laptop.set_up()
    join(laptop, "ann")
    printed = laptop.set_up()
    assert review(laptop) == (1, False)
    assert "needs 1 approval:" in printed and "Code owners need not approve" in printed
    assert owners(laptop) == OWNED.replace("@team", "@team @ann")
    assert "# Note: .github/CODEOWNERS has changed: commit it" in printed
    merge(laptop)
    laptop.set_up()
    assert review(laptop) == (1, True)
    text = owners(laptop)
    laptop.set_up()
    assert review(laptop) == (1, True) and owners(laptop) == text


def test_what_is_asked_for_wins(laptop: Laptop) -> None:
    laptop.set_up("--approvals", "2")
    assert review(laptop) == (2, False)
    laptop.set_up()
    assert review(laptop) == (2, False)  # what somebody made stricter stays
    join(laptop, "ann")
    laptop.set_up("--approvals", "0")
    assert review(laptop) == (0, False)


def test_owners_whose_approval_somebody_asked_for_stay(laptop: Laptop) -> None:
    laptop.set_up("--approvals", "1")

    def tighten(repository: Any) -> None:
        [main] = [ruleset for ruleset in repository["rulesets"].values() if ruleset["name"] == "main"]
        [rule] = [rule for rule in main["rules"] if rule["type"] == "pull_request"]
        rule["parameters"]["require_code_owner_review"] = True

    laptop.change_repository(tighten)
    laptop.set_up()
    assert review(laptop) == (1, True)


def test_an_organisation_names_a_team_in_the_first_push(organization: Laptop) -> None:
    organization.set_up("--team", "reviewers", "--approvals", "1")
    assert owners(organization, "origin/main") == OWNED.replace("@team", "@team/reviewers") == owners(organization)
    assert organization.git("status", "--porcelain") == ""
    assert organization.git("log", "--format=%s", "origin/main").split("\n")[:2] == ["Name the code owners", "First"]
    assert organization.git("diff", "--name-only", "HEAD~", "HEAD").split() == [CODEOWNERS]
    [team] = organization_teams(organization)
    assert team["repositories"] == {NAME: "push"}  # without which GitHub ignores an owner
    assert review(organization) == (1, True)


def organization_teams(laptop: Laptop) -> list[Any]:
    import json

    return list(json.loads(laptop.file.read_text())["teams"].values())


def test_without_a_team_the_organisation_is_told(organization: Laptop) -> None:
    printed = organization.set_up("--approvals", "1")
    assert "GitHub knows no organisation as an owner: ARGS='--team NAME'" in printed
    assert "CODEOWNERS, line 2: Unknown owner" in printed
    assert owners(organization) == OWNED and review(organization) == (1, False)


@pytest.mark.parametrize(
    ("teams", "owns", "match"),
    [
        ({}, True, "no team of team is called that"),
        ({"reviewers": {"privacy": "secret", "repositories": {}}}, True, "secret team"),
        (TEAM, False, "Must have admin rights"),
    ],
)
def test_a_team_that_github_would_ignore_is_not_named(organization: Laptop, teams: Any, owns: bool, match: str) -> None:
    organization.change(teams=teams, owns=owns)
    assert match in organization.refused("--team", "reviewers")
    assert owners(organization) == OWNED and rules(organization.repository, "main")


def test_only_an_organisation_has_teams(laptop: Laptop) -> None:
    assert "team is a person" in laptop.refused("--team", "reviewers")


@pytest.mark.parametrize("staged", [False, True])
def test_edits_are_kept_and_left_to_commit(organization: Laptop, staged: bool) -> None:
    """In the file that is written as in others, which the commit does not take along."""
    path = organization.project / CODEOWNERS
    edited = OWNED.replace("\n", "\r\n") + "/docs/ @team @ann\r\n/data/ @ann\r\n# @team\r\n"
    path.write_text(edited, newline="")
    if staged:
        organization.git("add", CODEOWNERS)
    printed = organization.set_up("--team", "reviewers")
    with path.open(newline="") as file:
        text = file.read()
    assert text == edited.replace("   @team\r", "   @team/reviewers\r").replace("@team  #", "@team/reviewers  #")
    assert organization.git("log", "--format=%s").split() == ["First"]
    assert "# Note: .github/CODEOWNERS has changed: commit it" in printed


def test_what_is_staged_is_not_in_the_commit_of_the_owners(organization: Laptop) -> None:
    (organization.project / "other").write_text("mine\n")
    organization.git("add", "other")
    organization.set_up("--team", "reviewers")
    assert organization.git("ls-tree", "--name-only", "origin/main", "other") == ""
    assert organization.git("diff", "--cached", "--name-only").split() == ["other"]


def test_after_the_first_push_it_is_a_change_to_commit(organization: Laptop) -> None:
    organization.set_up()
    head = organization.git("rev-parse", "origin/main")
    printed = organization.set_up("--team", "reviewers")
    assert "open a pull request" in printed and "@team/reviewers" in owners(organization)
    assert organization.git("rev-parse", "main") == organization.git("rev-parse", "origin/main") == head


def test_at_a_terminal_it_asks_for_the_team(organization: Laptop) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gitops.project.github_setup"]
    process = subprocess.Popen(
        command, cwd=organization.project, env=organization.environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, b"reviewers\n")
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # what a terminal whose other end is closed gives on Linux
            break
        if not chunk:
            break
        printed += chunk
    assert process.wait(60) == 0, printed.decode()
    assert b"Which team of team reviews" in printed
    assert owners(organization, "origin/main") == OWNED.replace("@team", "@team/reviewers")


def test_code_owners_are_named_for_files_that_exist() -> None:
    """Those among them with which workflows, releases and the cluster could be taken over."""
    lines = [line.split() for line in (ROOT / CODEOWNERS).read_text().splitlines()]
    named = {pattern: owners for pattern, *owners in (line for line in lines if line and line[0] != "#")}
    for pattern, people in named.items():
        assert list(ROOT.glob(pattern.lstrip("/"))), pattern
        assert people and all(owner.startswith("@") for owner in people)
    assert {"/.github/", "/k8s/", "/src/gitops/"} <= named.keys()
