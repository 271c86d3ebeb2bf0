"""docs/system-design.md, "Cloud roles": the policies that an owner copies let in whom the text says."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from defaults import ROOT

TEXT = (ROOT / "docs/system-design.md").read_text().partition("## Cloud roles")[2].partition("\n## ")[0]
MAIN, BRANCHES, RIGHTS = (
    json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT.replace("PREFIX", "repo:o@1/n@2"), re.DOTALL)
)
OPERATORS = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringLike": fnmatchcase,
    "StringNotLike": lambda value, wanted: not fnmatchcase(value, wanted),
}


def trusts(policy: Any, subject: str, ref: str) -> bool:
    """Return whether AWS lets a token take the role: all conditions hold, each for one value, a negated one for all."""
    [statement] = policy["Statement"]
    claims = {"sub": subject, "ref": ref, "aud": "sts.amazonaws.com"}
    for operator, keys in statement["Condition"].items():
        for key, wanted in keys.items():
            value = claims[key.rpartition(":")[2]]
            held = [OPERATORS[operator](value, one) for one in ([wanted] if isinstance(wanted, str) else wanted)]
            if not (all(held) if "Not" in operator else any(held)):
                return False
    return True


@pytest.mark.parametrize(
    ("subject", "ref", "roles"),
    [
        ("repo:o@1/n@2:ref:refs/heads/main", "refs/heads/main", {"main"}),
        ("repo:o@1/n@2:environment:main", "refs/heads/main", {"main"}),
        ("repo:o@1/n@2:environment:main", "refs/heads/idea", set()),  # as any branch can ask for on the free plan
        ("repo:o@1/n@2:environment:production", "refs/heads/main", set()),  # the job `release` needs no cloud
        ("repo:o@1/n@2:ref:refs/heads/idea", "refs/heads/idea", {"branches"}),
        ("repo:o@1/n@2:ref:refs/heads/feature/main", "refs/heads/feature/main", {"branches"}),
        (
            "repo:o@1/n@2:ref:refs/heads/gh-readonly-queue/main/pr-1-abc",
            "refs/heads/gh-readonly-queue/main/pr-1-abc",
            {"branches"},
        ),
        ("repo:o@1/n@2:ref:refs/heads/dependabot/uv/x", "refs/heads/dependabot/uv/x", set()),
        ("repo:o@1/n@2:ref:refs/heads/locks/uv/x", "refs/heads/locks/uv/x", set()),
        ("repo:o@1/n@2:pull_request", "refs/pull/1/merge", set()),
        ("repo:o@9/n@2:ref:refs/heads/main", "refs/heads/main", set()),
        ("repo:o@1/n@2:ref:refs/tags/v1", "refs/tags/v1", set()),
    ],
)
def test_who_gets_which_role(subject: str, ref: str, roles: set[str]) -> None:
    policies = {"main": MAIN, "branches": BRANCHES}
    assert {name for name, policy in policies.items() if trusts(policy, subject, ref)} == roles


def test_branches_read_the_remote_and_write_below_branches() -> None:
    allowed = {statement["Action"]: statement["Resource"] for statement in RIGHTS["Statement"]}
    assert allowed.keys() == {"s3:ListBucket", "s3:GetObject", "s3:PutObject"}
    for key, may_write in {"PATH/files/md5/ab/cd": False, "PATH/branches/0a/model.pt2": True}.items():
        assert fnmatchcase(f"arn:aws:s3:::BUCKET/{key}", allowed["s3:GetObject"])
        assert fnmatchcase(f"arn:aws:s3:::BUCKET/{key}", allowed["s3:PutObject"]) is may_write
