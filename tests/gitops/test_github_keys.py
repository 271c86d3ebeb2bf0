"""`make github`: the releases' deploy key and the key that signs images, which nothing but GitHub keeps."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from defaults import ROOT
from github_laptop import ADMIN, WRITE, Laptop, may, rules


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    laptop = Laptop(tmp_path)
    laptop.install_cosign()
    return laptop


def test_the_releases_have_a_deploy_key(laptop: Laptop) -> None:
    """Its private half is a secret of the environments that release, and nowhere else."""
    printed = laptop.set_up()
    repository = laptop.repository
    [key] = repository["keys"].values()
    assert key["title"] == "releases of churn" and key["read_only"] is False
    secrets = {name: environment["secret"] for name, environment in repository["environments"].items()}
    private = secrets["production"]["RELEASE_KEY"]
    assert secrets["rollback"] == {"RELEASE_KEY": private} and "RELEASE_KEY" not in secrets["main"]
    assert repository["secret"] == {}
    file = laptop.temporary / "key"
    file.touch(mode=0o600)
    file.write_text(private + "\n")  # as actions/checkout writes it
    derived = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == key["key"].split()[:2]
    file.unlink()
    told = printed + str(laptop.calls)
    for secret in (*private.splitlines()[1:-1], *secrets["main"].values()):
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
                stand.setdefault(name, set()).update(re.findall(r"secrets\.((?:RELEASE|COSIGN)_\w+)", str(job)))
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
    assert again["environments"]["main"] == first["environments"]["main"]


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


@pytest.mark.parametrize("plan", ["free", "team"])
def test_a_private_repository_signs_with_a_key(laptop: Laptop, plan: str) -> None:
    """The free plan has no environments, so that its secrets are the repository's."""
    laptop.change(plan=plan)
    printed = laptop.set_up()
    repository = laptop.repository
    secrets = repository["secret"] if plan == "free" else repository["environments"]["main"]["secret"]
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
    assert laptop.repository["environments"]["main"]["secret"] == {}
    laptop.install_cosign()
    assert "unsigned" not in laptop.set_up()
    assert laptop.repository["environments"]["main"]["secret"].keys() == {"COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"}


def test_a_public_repository_needs_no_key_for_signatures(laptop: Laptop) -> None:
    (laptop.bin / "cosign").unlink()
    assert "unsigned" not in laptop.set_up("--public")
