"""`make promote`: a pull request to env/production that is what staging runs, and what becomes of it once merged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from github_server import ACTIONS, GitHub
from gitops.core import params
from gitops.core.artifacts import digest
from gitops.deployment import plan, promote
from gitops.integrations import git, github, kustomize
from gitops.releases import release
from gitops.serving import serve
from releases import STAGED, Job, isolate, make_origin, refused, render

NEXT = "env/production-next"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_origin(tmp_path, staging=True)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """GitHub with no pull request, whose Git side is origin."""
    isolate(monkeypatch)
    for name in [name for name in os.environ if name.startswith(("GITHUB_", "SSL_")) or name == "NOW"]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(github, "PAUSE", 0)
    monkeypatch.setattr(release.time, "sleep", lambda seconds: None)
    with GitHub(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def promoted(job: Job, redeploy: bool = False, now: bool = True) -> str | None:
    """Promote; test_soak.py is about what is waited for."""
    with contextlib.chdir(job.path):
        commit: str | None = promote.promote(github.connect(), redeploy=redeploy, now=now)
    return commit


def tip(job: Job, branch: str) -> str | None:
    """Return the newest commit of a branch of origin, or None."""
    with contextlib.chdir(job.path):
        commit: str | None = git.fetch(branch)
    return commit


def merged(job: Job, server: GitHub, method: str) -> str:
    """Merge the open pull request as GitHub does, delete its branch, and return the commit of env/production."""
    [pull] = [pull for pull in server.pulls if pull["state"] == "open"]
    job.git("fetch", "--quiet", "origin")
    job.git("switch", "--quiet", "--detach", "origin/env/production")
    if method == "squash":
        job.git("merge", "--quiet", "--squash", f"origin/{NEXT}")
        told = job.git("log", "-1", "--format=%b", f"origin/{NEXT}")  # the message of the one commit
        job.git("commit", "--quiet", "--message", f"{pull['title']} (#{pull['number']})\n\n{told}")
    else:
        told = f"Merge pull request #{pull['number']} from owner/{NEXT}\n\n{pull['title']}"
        job.git("merge", "--quiet", "--no-ff", "--message", told, f"origin/{NEXT}")
    job.git("push", "--quiet", "origin", "HEAD:env/production", f":{NEXT}")
    job.git("switch", "--quiet", "main")
    pull |= {"state": "closed", "merged_at": "2026-11-26T12:00:00Z"}
    return str(tip(job, "env/production"))


def to_production(job: Job, server: GitHub, model: str, method: str = "merge") -> str:
    """Bring a model through staging to production."""
    job.release(model)
    assert promoted(job)
    return merged(job, server, method)


def containers(manifests: dict[str, bytes]) -> Any:
    objects = [yaml.safe_load(text) for text in manifests.values()]
    [deployment] = [item for item in objects if item["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def test_a_merge_is_released_to_staging_only(job: Job, server: GitHub) -> None:
    commit = job.release("model A")
    assert job.production("staging").commit == commit
    assert tip(job, "env/production") is None
    assert all(
        yaml.safe_load(text)["metadata"]["annotations"].items() >= STAGED.items()
        for text in job.manifests(commit).values()
    )
    with contextlib.chdir(job.path):
        assert plan.plan(params.load()) is None, "staging runs it"


@pytest.mark.parametrize("carded", [True, False], ids=["card", "no card"])
def test_stagings_model_card_comes_along(job: Job, server: GitHub, carded: bool) -> None:
    staged = job.release("model A")
    if not carded:
        job.without_card(staged, "staging")
    proposed = promoted(job)
    assert promoted(job) == proposed, "run again, it changes nothing"
    commit = merged(job, server, "merge")
    names = job.git("ls-tree", "--name-only", commit).split()
    assert names == ["debt.svg", "manifests", *(["model-card.md"] if carded else []), "release.json"]
    assert not carded or job.card(commit) == job.card(staged)


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_a_first_promotion(job: Job, server: GitHub, method: str) -> None:
    staged = job.release("model A")
    proposed = str(promoted(job))
    assert tip(job, NEXT) == proposed
    with contextlib.chdir(job.path):
        assert release.production() is None, "nothing is released before the merge"
        with refused("nothing was ever released to production"):
            job.rollback()
    [pull] = server.pulls
    assert (pull["head"]["ref"], pull["base"]["ref"], pull["user"]["login"]) == (NEXT, "env/production", ACTIONS)
    record = job.production("staging").record
    assert pull["title"] == f"Release toy {record.model.version}"
    for told in (
        record.model.version,
        record.commit[:12],
        "run-1",
        record.image,
        "Accepted.",
        "**0.9** (0.8 to 1)",
        "| – |",
    ):
        assert told in pull["body"], told

    merge = merged(job, server, method)
    assert job.tree(merge) == job.tree(proposed)
    assert job.production().record == record.model_copy(update={"previous": None})
    assert job.git("ls-tree", "--name-only", merge).split() == [
        "debt.svg",
        "manifests",
        "model-card.md",
        "release.json",
    ]
    manifests = job.manifests(merge)
    assert [it["image"] for it in containers(manifests) if it["name"] == kustomize.SERVER] == [record.image]
    assert containers(manifests) == containers(job.manifests(staged))
    assert not any(
        "annotations" in text and "environment: staging" in text for text in map(bytes.decode, manifests.values())
    )
    assert promoted(job) is None
    with refused("first release"):
        job.rollback()


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_the_release_log_is_correct_after_merge_commit_and_squash(job: Job, server: GitHub, method: str) -> None:
    first, second = (to_production(job, server, f"model {name}", method) for name in "AB")
    record = job.production().record
    assert (job.production().commit, record.previous) == (second, first)
    assert record.model.sha256 == digest(job.path / "model/model.pt2")
    assert job.git("rev-list", "--first-parent", second).split()[:2] == [second, first]
    back = str(job.rollback())
    assert job.tree(back) == job.tree(first)
    assert job.manifests(back) == job.manifests(first)

    with refused("of env/production rolled back toy .* REDEPLOY=1.*workflow Promote"):
        promoted(job)
    assert promoted(job, redeploy=True)
    assert f"Production had rolled this back (`{back[:12]}`)" in server.pulls[-1]["body"]
    again = merged(job, server, method)
    assert job.manifests(again) == job.manifests(second)
    assert (job.production().record.previous, job.production().record.lifts) == (back, [back])
    assert job.tree(str(job.rollback())) == job.tree(back)


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_a_merge_that_was_reverted_by_hand_is_not_promoted_again(job: Job, server: GitHub, method: str) -> None:
    first = to_production(job, server, "model A", method)
    to_production(job, server, "model B", method)
    job.git("switch", "--quiet", "--detach", "origin/env/production")
    job.git("revert", "--no-edit", *(["-m", "1"] if method == "merge" else []), "HEAD")
    job.git("push", "--quiet", "origin", "HEAD:env/production")
    job.git("switch", "--quiet", "main")
    assert job.manifests(job.production().commit) == job.manifests(first)
    with refused("of env/production rolled back toy .* REDEPLOY=1.*workflow Promote"):
        promoted(job)


def test_the_pull_request_is_opened_once_and_edited_later(job: Job, server: GitHub) -> None:
    job.release("model A")
    proposed = promoted(job)
    assert promoted(job) == proposed, "nothing has changed"
    job.release("model B")
    newer = str(promoted(job))
    assert newer != proposed and tip(job, NEXT) == newer
    [pull] = server.pulls
    version = job.production("staging").record.model.version
    assert pull["title"] == f"Release toy {version}" and version in pull["body"]
    assert job.git("rev-parse", f"{newer}^") == tip(job, "env/production"), "one commit, not two"
    assert [call.method for call in server.calls if call.method != "GET"] == ["POST", "PATCH", "PATCH"]


def test_the_changes_are_listed(job: Job, server: GitHub) -> None:
    to_production(job, server, "model A")
    old = job.production().record
    settings = (job.path / "params.yaml").read_text()
    job.write("params.yaml", settings.replace("roc_auc: 0.5", "roc_auc: 0.6"))
    job.release("model B")
    promoted(job)
    body = server.pulls[-1]["body"]
    new = job.production("staging").record
    assert f"| model | `{old.model.version}` | `{new.model.version}` |" in body
    assert "| `gate.thresholds.roc_auc` | `0.5` | `0.6` |" in body
    assert body.count("**0.9** (0.8 to 1)") == 2
    assert "another release" not in body


def test_what_productions_cluster_has_to_have_is_told_once(job: Job, server: GitHub) -> None:
    """Production's components are rendered here for the first time: staging has none of their kinds."""
    told = "The release needs PrometheusRule and ServiceMonitor (monitoring.coreos.com) in the cluster"
    to_production(job, server, "model A")
    job.release("model B")
    promoted(job)
    assert [told in pull["body"] for pull in server.pulls] == [True, False]


def test_a_gate_that_compared_with_another_release_is_reported(job: Job, server: GitHub) -> None:
    compared = [to_production(job, server, f"model {name}") for name in "AB"][-1]
    job.release("model C")
    assert job.production("staging").record.gate.release == compared
    job.rollback()
    promoted(job)
    assert "It compared with another release than the one in production now" in server.pulls[-1]["body"]


def test_nothing_was_ever_staged(job: Job, server: GitHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert promoted(job) is None
    assert "nothing to promote" in capsys.readouterr().out
    assert tip(job, "env/production") is tip(job, NEXT) is None and server.pulls == []


def test_a_rollback_of_staging_updates_the_proposal(job: Job, server: GitHub) -> None:
    to_production(job, server, "model A")
    job.release("model B")
    job.release("model C")
    promoted(job)
    job.rollback("staging")
    second = promoted(job)
    [pull] = [pull for pull in server.pulls if pull["state"] == "open"]
    assert job.production("staging").record.model.version in pull["title"] and tip(job, NEXT) == second
    job.rollback("staging")
    assert promoted(job) is None, "production runs that"
    assert pull["state"] == "closed" and "nothing to release" in pull["body"]
    assert [each["number"] for each in server.pulls] == [1, 2]


def test_staging_refuses_what_was_rolled_back_there(job: Job, server: GitHub) -> None:
    job.release("model A")
    job.release("model B")
    job.rollback("staging")
    job.merge("Only documents")
    job.gate()
    with refused("of env/staging rolled back toy .* the same model.*workflow CI"):
        job.deploy()


def test_production_changes_during_a_promotion(job: Job, server: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody rolls back between what the job read and its pull request: it is made again, on top of that."""
    first, _ = to_production(job, server, "model A"), to_production(job, server, "model B")
    job.release("model C")
    replace = git.replace

    def outrun(commit: str, branch: str, seen: str | None) -> None:
        monkeypatch.setattr(git, "replace", replace)
        job.rollback()
        replace(commit, branch, seen)

    monkeypatch.setattr(git, "replace", outrun)
    proposed = str(promoted(job))
    back = str(tip(job, "env/production"))
    assert job.tree(back) == job.tree(first)
    assert job.git("rev-parse", f"{proposed}^") == back and tip(job, NEXT) == proposed
    assert len([pull for pull in server.pulls if pull["state"] == "open"]) == 1
    merge = merged(job, server, "squash")
    assert job.production().record.previous == back and job.tree(merge) == job.tree(proposed)


def test_an_older_job_does_not_overwrite_what_a_newer_one_proposes(
    job: Job, other: Job, server: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.release("model A")
    replace = git.replace

    def outrun(commit: str, branch: str, seen: str | None) -> None:
        monkeypatch.setattr(git, "replace", replace)
        job.release("model B")
        promoted(job)
        other.git("fetch", "--quiet", "origin")
        with contextlib.chdir(other.path):
            replace(commit, branch, seen)

    monkeypatch.setattr(git, "replace", outrun)
    promoted(other)
    version = job.production("staging").record.model.version
    with contextlib.chdir(job.path):
        assert release.read(str(git.fetch(NEXT))).model.version == version
    [pull] = server.pulls
    assert version in pull["title"]


def test_two_jobs_that_create_the_branch_agree(job: Job, server: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    job.release("model A")
    push = git.push

    def outrun(commit: str, branch: str) -> None:
        monkeypatch.setattr(git, "push", push)
        promoted(job)
        push(commit, branch)

    monkeypatch.setattr(git, "push", outrun)
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")  # another commit than the other one's
    assert promoted(job) == tip(job, NEXT)
    assert len(server.pulls) == 1


def test_argo_cd_finds_the_commit_of_main(job: Job, server: GitHub) -> None:
    """In the message of each release, squashed promotion and rollback; a merge commit's does not tell it."""
    read = re.search(r'regexFindAll "(.*?)"', (job.path / "k8s/argocd/notifications.yaml").read_text())
    assert read
    trailer = re.compile(read[1].replace("\\\\", "\\"))

    def told(commit: str) -> list[str]:
        return [line.split()[1] for line in trailer.findall(job.git("log", "-1", "--format=%B", commit))]

    first = job.release("model A")
    main = job.production("staging").record.commit
    assert told(str(first)) == told(str(promoted(job))) == [main]
    squashed = merged(job, server, "squash")
    assert told(squashed) == [main] and job.production().record.commit == main
    merge = to_production(job, server, "model B")
    assert told(merge) == []
    assert told(str(job.rollback())) == told(str(job.rollback("staging"))) == [main]


def test_a_proposal_with_an_outdated_base_is_a_merge_conflict(job: Job, server: GitHub) -> None:
    for name in "AB":
        to_production(job, server, f"model {name}")
    job.release("model C")
    promoted(job)
    job.rollback()
    with pytest.raises(Exception, match="merge"):
        merged(job, server, "merge")


@pytest.mark.parametrize("checked_out", ["older", "newer"])
def test_what_is_checked_out_does_not_matter(job: Job, other: Job, server: GitHub, checked_out: str) -> None:
    """Production's manifests are those of the released commit."""
    service = job.path / "k8s/base/service.yaml"
    service.write_text(service.read_text().replace("metadata:", "metadata:\n  annotations: {now: changed}", 1))
    job.release("model A")
    with contextlib.chdir(job.path):
        record = job.production("staging").record
        wanted = render(record.image, "toy", record.model.sha256)
    if checked_out == "newer":
        other.git("pull", "--quiet", "origin", "main")
        service = other.path / "k8s/base/service.yaml"
        service.write_text(service.read_text().replace("now: changed", "now: newer"))
        other.merge("Not deployed yet")
    other.write("k8s/overlays/production/kustomization.yaml", "not even committed")
    proposed = str(promoted(other))
    assert job.git("fetch", "--quiet", "origin") == "" and job.manifests(proposed) == wanted
    assert b"now: changed" in b"".join(wanted.values())


def test_staging_must_run_a_commit_of_main(job: Job, server: GitHub) -> None:
    job.release("model A")
    job.git("push", "--quiet", "--force", "origin", "HEAD^:main")
    with refused("was main rewritten"):
        promoted(job)


def test_actions_may_not_open_pull_requests(job: Job, server: GitHub) -> None:
    job.release("model A")
    server.may_open = False
    with refused("Allow GitHub Actions to create and approve pull requests.*make github"):
        promoted(job)
    server.may_open = True
    assert promoted(job) == tip(job, NEXT)
    assert len(server.pulls) == 1


def test_a_pull_request_is_not_opened_twice_after_a_lost_response(job: Job, server: GitHub) -> None:
    job.release("model A")
    server.late = True
    server.refusals["POST"] = [(502, {}, {})]
    promoted(job)
    assert len(server.pulls) == 1


def test_a_foreign_pull_request_is_left_alone(job: Job, server: GitHub) -> None:
    server.open_pull(7, "a" * 40, NEXT, fork="stranger/name", base="env/production")
    server.open_pull(8, "a" * 40, NEXT)
    job.release("model A")
    promoted(job)
    assert [(pull["number"], "title" in pull) for pull in server.pulls] == [(7, False), (8, False), (9, True)]


def test_a_branch_that_lost_its_record_is_an_error(job: Job, server: GitHub) -> None:
    to_production(job, server, "model A")
    job.git("switch", "--quiet", "--detach", "origin/env/production")
    job.git("rm", "--quiet", "release.json")
    job.git("commit", "--quiet", "--message", "Lose the record")
    job.git("push", "--quiet", "origin", "HEAD:env/production")
    job.git("switch", "--quiet", "main")
    for act in (lambda: promoted(job), job.rollback, job.production):
        with refused("holds no release record"):
            act()


def test_a_project_without_staging_any_more_releases_to_production(job: Job, server: GitHub) -> None:
    """Also where the log was begun, and nothing was ever merged into it."""
    job.release("model A")
    promoted(job)
    shutil.rmtree(job.path / "k8s/overlays/staging")
    released = job.release("model B")
    assert job.git("rev-list", "--count", released) == "2" and job.production().record.previous is None
    with refused("there is no k8s/overlays/staging"):
        promoted(job)


def test_the_release_of_each_environment_can_be_served(
    job: Job, server: GitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gitops.integrations.dvc.fetch", lambda md5: tmp_path / md5)
    to_production(job, server, "model A")
    job.release("model B")
    with contextlib.chdir(job.path):
        for environment in kustomize.environments():
            monkeypatch.setattr("sys.argv", ["serve", "--environment", environment])
            record = job.production(environment).record
            found = serve._released(serve._options().environment)
            assert found == (tmp_path / record.package.md5, record.model.sha256, "toy")
        shutil.rmtree(job.path / "k8s/overlays/staging")
        monkeypatch.setattr("sys.argv", ["serve", "--environment", "staging"])
        with pytest.raises(SystemExit):
            serve._options()


def test_the_command(job: Job, server: GitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    job.release("model A")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setattr("sys.argv", ["promote"])
    with contextlib.chdir(job.path):
        promote.main()
        assert server.pulls == [] and "has not been reported as live" in capsys.readouterr().out
        monkeypatch.setenv("NOW", "1")
        promote.main()
    [pull] = server.pulls
    assert pull["html_url"] in capsys.readouterr().out
    assert pull["body"] in (tmp_path / "summary").read_text()
    assert json.dumps(pull["body"]).count(server.token) == 0


@pytest.mark.parametrize("staged", [True, False])
def test_the_overlays_define_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staged: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("production", "staging") if staged else ("production",):
        (tmp_path / "k8s/overlays" / name).mkdir(parents=True)
    assert kustomize.environments() == (["staging", "production"] if staged else ["production"])
    assert kustomize.first() == ("staging" if staged else "production")
