"""What a rollback took back is refused, whatever leads to it again, until main undoes it or a person says so."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from github_server import GitHub
from gitops.integrations import github
from gitops.registry import lineage, trace
from gitops.releases import history, holds, release
from holding import (
    FOLLOWERS,
    began,
    held,
    isolated,
    merge,
    parents,
    planned,
    push,
    reported,
    run_pipeline,
    undone_on_main,
)
from releases import Job, make_origin, refused
from test_promote import merged, promoted
from test_rollback import revert_by_hand

KINDS = ("model", "handler", "manifest")

#: Each kind of change, taken back in each way.
EACH = [(take_back, kind) for take_back in (Job.rollback, revert_by_hand) for kind in KINDS]
SOME = [(Job.rollback, "model"), (Job.rollback, "manifest"), (revert_by_hand, "handler"), (revert_by_hand, "manifest")]


def named(value: object) -> str:
    return {Job.rollback: "make rollback", revert_by_hand: "git revert"}.get(value, str(value))  # type: ignore[call-overload]


@pytest.fixture(params=["production"])
def environment(request: pytest.FixtureRequest) -> str:
    """The environment that a merge releases to."""
    return str(request.param)


@pytest.fixture
def origin(tmp_path: Path, environment: str) -> Path:
    return make_origin(tmp_path, staging=environment == "staging")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolated(monkeypatch)


@pytest.mark.parametrize(
    ("environment", "take_back", "kind"),
    [*(("production", *each) for each in EACH), *(("staging", *each) for each in SOME)],
    ids=named,
    indirect=["environment"],
)
def test_nothing_that_holds_it_is_released(
    job: Job, environment: str, take_back: Callable[[Job, str], object], kind: str
) -> None:
    """Each in turn on top of the one before."""
    _, second = began(job, kind)
    take_back(job, environment)
    back = job.production(environment).commit
    job.gate()
    for follow in FOLLOWERS.values():
        follow(job)
        undo = rf"undo it on main \(`git revert {second[:12]}`\), or set REDEPLOY=1.*workflow CI"
        held(
            job,
            rf"commit {back[:12]} of env/{environment} rolled back toy .* of commit {second[:12]}.*\.(py|yaml).*{undo}",
        )
    assert job.production(environment).commit == back


@pytest.mark.parametrize(("take_back", "kind"), SOME, ids=named)
@pytest.mark.parametrize("environment", ["staging"], indirect=True)
def test_nothing_that_holds_it_is_promoted(
    job: Job, take_back: Callable[[Job, str], object], kind: str, server: GitHub
) -> None:
    merge(job, "model", "good")
    job.deploy()
    promoted(job)
    merged(job, server, "merge")
    second = merge(job, kind)
    job.deploy()
    promoted(job)
    merged(job, server, "merge")
    take_back(job, "production")
    back = job.production().commit
    for follow in ("the same job", "documents", "a retraining"):
        FOLLOWERS[follow](job)
        job.gate()
        assert (job.deploy() is not None) == (follow == "a retraining"), "staging has rolled nothing back"
        with refused(f"of env/production rolled back toy .* of commit {second[:12]}.*workflow Promote"):
            promoted(job)
    undone_on_main(job, second)
    assert job.deploy() and promoted(job)
    merged(job, server, "squash")
    assert (job.production().record.previous, job.production().record.lifts) == (back, [])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    for name in [name for name in os.environ if name.startswith(("GITHUB_", "SSL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(github, "PAUSE", 0)
    with GitHub(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.mark.parametrize(("take_back", "kind"), SOME, ids=named)
def test_main_undoes_it(job: Job, take_back: Callable[[Job], object], kind: str) -> None:
    _, second = began(job, kind)
    take_back(job)
    merge(job, "documents", "new")
    undone_on_main(job, second)
    assert job.deploy() is None, "production runs that already"
    merge(job, "data", "1")
    assert planned(job) and job.deploy()
    assert job.production().record.lifts == []
    merge(job, "manifest", "another")
    assert job.deploy(), "the hold has ended"


def test_it_is_undone_by_hand_and_later_changed_anew(job: Job) -> None:
    """The files are as before in some commit of main since; what comes after that is another change."""
    began(job, "handler")
    job.rollback()
    (job.path / "src/handler.py").unlink()
    push(job, "By hand")
    merge(job, "handler", "better")
    assert planned(job) and job.deploy()


def test_what_was_undone_comes_back_the_same(job: Job) -> None:
    """Nothing was released in between, so the hold stands."""
    _, second = began(job, "manifest")
    job.rollback()
    undone_on_main(job, second)
    held_by_files = job.git("rev-parse", "HEAD")
    undone_on_main(job, held_by_files)
    held(job, "still holds that change")


@pytest.mark.parametrize(
    "message", ["This reverts commit {}.", "This reverts commit {:.8} (manifest: bad, 2026-01-01)."]
)
def test_a_commit_that_says_it_reverts_it(job: Job, message: str) -> None:
    """Something else has changed the same file meanwhile, so that it is not as before."""
    _, second = began(job, "manifest")
    job.rollback()
    merge(job, "manifest", "another")
    held(job, "still holds that change")
    service = job.path / "k8s/base/service.yaml"
    service.write_text(service.read_text().replace("    bad: changed\n", ""))
    claim = push(job, message.format(second))
    run_pipeline(job)
    assert planned(job)
    undone_on_main(job, claim)
    held(job, "still holds that change")
    undone_on_main(job, job.git("rev-parse", "HEAD"))
    assert planned(job) and job.deploy()


def test_a_claim_that_reverts_nothing(job: Job) -> None:
    _, second = began(job, "handler")
    job.rollback()
    push(job, f"This reverts commit {second}.")
    run_pipeline(job)
    held(job, "still holds that change")


def merged_branch(job: Job, kind: str) -> str:
    """Merge a branch that changes `kind`, with a merge commit, and return that."""
    job.git("switch", "--quiet", "--create", "branch")
    merge_commit = job.git("rev-parse", "HEAD")
    job.write(f"src/{kind}.py", "bad")
    job.git("add", "--all")
    job.git("commit", "--quiet", "--message", "On a branch")
    job.git("switch", "--quiet", "main")
    job.git("merge", "--quiet", "--no-ff", "--message", "Merge the branch", "branch")
    job.git("branch", "--quiet", "--delete", "branch")
    job.git("push", "--quiet", "origin", "HEAD:main")
    run_pipeline(job)
    assert parents(job, "HEAD")[0] == merge_commit
    return job.git("rev-parse", "HEAD")


def test_a_merge_is_reverted_as_a_merge(job: Job) -> None:
    merge(job, "model", "good")
    job.deploy()
    second = merged_branch(job, "handler")
    job.deploy()
    job.rollback()
    held(job, rf"\(`git revert -m 1 {second[:12]}`\)")
    undone_on_main(job, second)
    merge(job, "handler", "better")  # so that only the message of the revert speaks for it
    assert planned(job)
    branch = parents(job, "HEAD^")[0]
    assert "reversing" in job.git("log", "-1", "--format=%B", "HEAD^") and branch == second


def test_every_commit_since_the_release_before_counts(job: Job) -> None:
    """Of waiting deployments GitHub runs the newest alone: a release may hold several merges."""
    merge(job, "model", "good")
    job.deploy()
    skipped = merge(job, "manifest")
    second = merge(job, "handler")
    job.deploy()
    job.rollback()
    held(job, rf"\(`git revert {second[:12]}`, `git revert {skipped[:12]}`\)")
    undone_on_main(job, second)
    merge(job, "handler", "better")
    held(job, "k8s/base/service.yaml")
    job.git("switch", "--quiet", "--detach", skipped)
    run_pipeline(job)
    held(job, f"{skipped[:12]} still holds that change")
    job.git("switch", "--quiet", "main")
    undone_on_main(job, skipped)
    assert planned(job)


def test_two_rollbacks_in_a_row(job: Job) -> None:
    first, second = began(job, "handler")
    third = merge(job, "manifest")
    job.deploy()
    job.rollback()
    job.gate()
    held(job, f"of commit {third[:12]}")
    job.rollback()
    assert job.production().record.commit == first
    undone_on_main(job, third)
    held(job, f"of commit {third[:12]}.*src/handler.py")
    undone_on_main(job, second)
    merge(job, "data", "1")
    assert job.deploy()


def test_what_two_rollbacks_took_back_is_undone_at_once(job: Job) -> None:
    """Production never went back to the release in between for good: main need not."""
    began(job, "handler")
    merge(job, "handler", "worse")
    job.deploy()
    job.rollback()
    job.rollback()
    (job.path / "src/handler.py").unlink()
    merge(job, "data", "1")
    assert planned(job)


def restored(job: Job, commit: str) -> str:
    """Restore the files of an earlier commit of env/production, as a button would; return the new commit."""
    tip = job.production().commit
    made = job.git("commit-tree", f"{commit}^{{tree}}", "-p", tip, "-m", "Restore")
    job.git("push", "--quiet", "origin", f"{made}:env/production")
    return made


def test_a_jump_over_two_releases(job: Job) -> None:
    first, second = began(job, "handler")
    merge(job, "manifest")
    newest = job.deploy()
    back = restored(job, job.git("rev-parse", f"{newest}~2"))
    assert job.production().record.commit == first
    job.git("switch", "--quiet", "--detach", second)
    run_pipeline(job)
    held(job, f"commit {back[:12]} of env/production rolled back toy .*src/handler.py")


def test_an_older_release_in_between_was_not_taken_back(job: Job) -> None:
    _, second = began(job, "handler")
    third = merge(job, "manifest")
    newest = job.deploy()
    for commit in (f"{newest}~2", str(newest), f"{newest}~1"):
        restored(job, job.git("rev-parse", commit))
    assert job.production().record.commit == second
    undone_on_main(job, third, second)
    assert job.deploy(), "the first release's archive may come back"


def test_a_rollback_of_a_fix_restores_the_hold(job: Job) -> None:
    """What was lifted for it is held up again."""
    _, second = began(job, "handler")
    job.rollback()
    third = merge(job, "manifest")
    assert job.deploy(redeploy=True)
    job.rollback()
    undone_on_main(job, third)
    held(job, rf"still holds that change \(src/handler.py\).*git revert {second[:12]}")


def test_a_rollback_that_was_reverted_holds_nothing(job: Job) -> None:
    began(job, "handler")
    revert_by_hand(job)
    revert_by_hand(job)
    job.gate()
    assert job.deploy() is None, "production runs it again"
    merge(job, "data", "1")
    assert job.deploy()
    with contextlib.chdir(job.path):
        log = history.read(job.production().commit)
    assert [one.state for one in history.releases(log)] == ["superseded", "superseded", "deployed"]
    assert history.rollbacks(log) == [None, None, 0, None, None]


def test_a_person_lifts_it(job: Job) -> None:
    began(job, "handler")
    job.rollback()
    back = job.production().commit
    merge(job, "documents", "new")
    commit = str(job.deploy(redeploy=True))
    assert job.production().record.lifts == [back]
    assert job.git("log", "-1", "--format=%(trailers:key=Lifts-rollback,valueonly)", commit) == back
    with contextlib.chdir(job.path):
        [one] = trace.trace(None)["releases"]
    assert f"REDEPLOY=1, though commit {back[:12]} of env/production had rolled it back" in lineage.table(one)
    merge(job, "data", "1")
    assert job.deploy(redeploy=True), "it was lifted for what follows too"
    assert job.production().record.lifts == []
    assert "Lifts-rollback" not in job.git("log", "-1", "--format=%B", job.production().commit)


@pytest.mark.parametrize("kind", KINDS)
def test_another_history_leads_to_the_same(job: Job, kind: str) -> None:
    """main was rewritten: its commits do not descend from what was taken back, and clones may lack that."""
    first, second = began(job, kind)
    job.rollback()
    job.git("reset", "--quiet", "--hard", first)
    merge(job, "documents", "another history")
    job.git("cherry-pick", "--no-commit", second)
    job.git("commit", "--quiet", "--message", "The same again")
    job.git("push", "--quiet", "--force", "origin", "HEAD:main")
    run_pipeline(job)
    origin = Path(job.git("remote", "get-url", "origin"))
    job.git("prune", "--expire=now", at=origin)
    clone = Job(origin, job.path.parent / "clone")
    assert clone.git("rev-parse", "HEAD") == job.git("rev-parse", "HEAD")
    with pytest.raises(subprocess.CalledProcessError):
        clone.git("rev-parse", "--verify", f"{second}^{{commit}}")
    run_pipeline(clone)
    what = {"model": "model", "handler": "archive", "manifest": "manifests"}[kind]
    for each in (job, clone):
        with refused(f"rolled back toy .* has the same {what}"):
            each.deploy()


def test_what_was_gone_back_to_is_lost(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = began(job, "handler")
    job.rollback()
    exists = holds.git.exists
    monkeypatch.setattr(holds.git, "exists", lambda revision: revision != first and exists(revision))
    held(job, f"all since {first[:12]}, which this clone lacks")
    with contextlib.chdir(job.path):
        undone_on_main(job, second)
        found = holds.examine("production", job.production().commit, job.git("rev-parse", "HEAD"), {})
    assert not found.refusals and len(found.undone) == 1


def test_a_file_that_can_change_no_release_may_differ(job: Job) -> None:
    merge(job, "model", "good")
    job.deploy()
    for name in ("docs/operate.md", "tests/test_model.py", "NOTES.md"):
        job.write(name, "new")
    second = merge(job, "handler")
    job.deploy()
    job.rollback()
    (job.path / "src/handler.py").unlink()
    merge(job, "data", "1")
    assert planned(job)
    job.write("src/notes.md", "read by the handler, perhaps")
    with contextlib.chdir(job.path):
        assert holds.reverts(f"{second}^", second) == [f"git revert {second[:12]}"]


@pytest.mark.parametrize("environment", ["staging"], indirect=True)
def test_the_report_speaks_of_the_environment_that_rolled_back(job: Job, server: GitHub) -> None:
    for kind in ("model", "handler"):
        merge(job, kind)
        job.deploy()
        promoted(job)
        merged(job, server, "merge")
    job.rollback("production")
    merge(job, "documents", "new")
    text = reported(job)
    assert "Will not be released to production" in text and "staging" not in text


def test_a_rollback_that_was_made_before_there_were_trailers(job: Job) -> None:
    """By the template's first version: the tree of the release before, and a message."""
    _, second = began(job, "manifest")
    tip = job.production().commit
    restored(job, f"{tip}^")
    merge(job, "documents", "new")
    held(job, f"of commit {second[:12]}")


def test_an_unreadable_message_and_an_unknown_commit(job: Job) -> None:
    _, second = began(job, "handler")
    job.rollback()
    tree = job.git("rev-parse", "HEAD^{tree}")
    text = b"This reverts commit deadbeefdeadbeefdeadbeefdeadbeefdeadbeef. \xff\n"
    (job.path / ".git/message").write_bytes(text)
    commit = job.git("-c", "i18n.commitEncoding=", "commit-tree", tree, "-p", second, "-F", ".git/message")
    job.git("reset", "--quiet", "--hard", commit)
    job.git("push", "--quiet", "origin", "HEAD:main")
    held(job, "still holds that change")


def test_it_needs_the_whole_history(job: Job, tmp_path: Path) -> None:
    began(job, "handler")
    job.rollback()
    origin = job.git("remote", "get-url", "origin")
    job.git("clone", "--quiet", "--depth=1", "--no-single-branch", f"file://{origin}", str(tmp_path / "shallow"))
    with contextlib.chdir(tmp_path / "shallow"), refused("shallow clone"):
        holds.read(str(release.git.fetch("env/production")))
