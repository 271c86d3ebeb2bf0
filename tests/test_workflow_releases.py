"""The run of main: what it judges, builds and releases, on which plan, with whose approval; and the buttons beside it.

The steps are the generated workflows' own, on the small project of workflow_project.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from workflow_events import dispatch, of_main
from workflow_project import MAIN_ROLE, Project, small_project
from workflow_runner import Run, again, approve, begin, go

Make = Callable[..., Project]

#: Public repositories have everything on every plan; of private ones GitHub's plans take it away.
PLANS = [("public", "free"), ("private", "free"), ("private", "team"), ("private", "enterprise")]


@pytest.fixture
def make(projects: dict[str, Path], tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes the project, and pushes main, which has started nothing yet."""
    with ExitStack() as stack:

        def made(remote: str = "folder", visibility: str = "public", plan: str = "free", **options: bool) -> Project:
            staging = options.pop("staging", False)
            generated = projects["staging" if staging else "defaults"]
            project = stack.enter_context(small_project(tmp_path, generated, remote, staging))
            project.hub.visibility, project.hub.plan = visibility, plan
            project.set_up("staging" if staging else "production", **options)
            project.push("main")
            return project

        yield made


def ci(project: Project) -> Run:
    """Deliver what was pushed and return the run of main."""
    [found] = [ran for ran in project.deliver() if ran.workflow == "CI"]
    assert set(found.results) - {"register"} == {"test", "pipeline", "pass", "verify", "build", "release"}
    assert found.results["pipeline"] == found.results.get("pass") == "skipped"
    return found


@pytest.mark.parametrize("remote", ["folder", "bucket"])
def test_run_of_main(make: Make, remote: str) -> None:
    """Test and judge, then build, then release: each with the rights that it needs and no more."""
    project = make(remote)
    project.hub.vars["TRAINING_RUNNER"] = "big-machine"
    ran = ci(project)
    assert ran.conclusion == "success", ran.told()
    assert ran.concurrency == {"group": "ci-refs/heads/main", "cancel-in-progress": False}
    assert {name: job.runs_on for name, job in ran.jobs.items() if job.result == "success"} == {
        "test": "ubuntu-24.04",
        "verify": "big-machine",
        "build": "ubuntu-24.04",
        "release": "ubuntu-24.04",
    }
    assert {name: job.environment for name, job in ran.jobs.items() if job.environment} == {
        "build": "main",
        "release": "production",
        "register": "main",
    }
    signed_in = ran.inputs_of("aws-actions/configure-aws-credentials")
    assert [use["role-to-assume"] for use in signed_in] == [MAIN_ROLE, MAIN_ROLE]  # to judge, and for the archive
    *trained, handed = ran.inputs_of("actions/upload-artifact")
    assert len(trained) == (1 if remote == "folder" else 0)
    files = sorted(path.name for path in project.hub.artifact(ran.id, handed["name"]).rglob("*") if path.is_file())
    assert files == (["model", "plan.json"] if remote == "folder" else ["plan.json"])  # nothing private of a bucket
    ((tag, digest),) = project.hub.images.items()
    assert digest in project.hub.git("show", "env/production:record.json") and tag.startswith("ghcr.io/")
    caches = [use["enable-cache"] for use in ran.inputs_of("astral-sh/setup-uv")]
    assert caches == ["true", "false", "false", "false"]  # a release is made of nothing that another run has kept
    assert project.log()[-1] == "release: comment on that was merged at main"
    assert project.deliver() == []  # the push to env/production starts nothing, though a deploy key's push may


@pytest.mark.parametrize("broken", ["test", "verify"])
def test_release_needs_both(make: Make, broken: str) -> None:
    project = make("bucket")
    if broken == "test":
        project.hub.caused()
        project.change("main", broken__txt="")
    else:
        del project.hub.vars["AWS_ROLE_ARN"]
    ran = ci(project)
    assert ran.results[broken] == "failure" and ran.results["build"] == ran.results["release"] == "skipped"
    assert project.releases() == 0 and not project.hub.images


def test_nothing_to_release(make: Make) -> None:
    """No image, and nobody is asked."""
    project = make(reviewers=True)
    approve(ci(project))
    project.change("main", notes="a word")
    ran = ci(project)
    assert ran.results["verify"] == "success" and ran.results["build"] == ran.results["release"] == "skipped"
    assert ran.conclusion == "success" and project.releases() == 1


@pytest.mark.parametrize(("visibility", "plan"), PLANS)
@pytest.mark.parametrize("reviewers", [False, True])
def test_plan(make: Make, visibility: str, plan: str, reviewers: bool) -> None:
    """Each reaches a release, with what it has: rules that only the key passes, reviewers, a signature."""
    project = make(visibility=visibility, plan=plan, reviewers=reviewers)
    ran = ci(project)
    if reviewers and project.hub.has("reviewers"):
        assert ran.conclusion == ran.results["release"] == "waiting" and ran.results["build"] == "success"
        assert project.releases() == 0
        later = begin(project.hub, "ci.yaml", dispatch(project.hub, "ci.yaml"))
        assert later.state == "pending"  # so that it is judged against what this one releases
        approve(ran)
    assert ran.conclusion == "success", ran.told()
    assert project.releases() == 1
    [checked_out] = [use for use in ran.inputs_of("actions/checkout") if "ssh-key" in use]
    assert bool(checked_out["ssh-key"]) is project.hub.has("environments")
    signature = project.hub.signatures.read_text() if project.hub.signatures.exists() else ""
    if visibility == "public":
        assert signature.startswith("sign --yes ghcr.io/owner/name@sha256:")
    elif plan == "free":
        assert (
            signature == "" and "::warning::the image is not signed" in ran.jobs["build"].step("Sign the image").output
        )
    else:
        assert signature.startswith("sign --key env://COSIGN_PRIVATE_KEY ghcr.io/owner/name@sha256:")


def test_free_plan_with_secrets_of_the_repository(make: Make) -> None:
    """Without environments the repository's secrets do the same, and are every branch's."""
    project = make(visibility="private")
    project.hub.secrets = {"COSIGN_PRIVATE_KEY": "a key", "COSIGN_PASSWORD": "its password"}
    assert ci(project).conclusion == "success"
    assert project.hub.signatures.read_text().startswith("sign --key")


def test_rules_refuse_the_token(make: Make) -> None:
    """Without the key the release fails where there are rules; with it the failed job alone is run again."""
    project = make()
    secrets, project.hub.environments["production"].secrets = project.hub.environments["production"].secrets, {}
    ran = ci(project)
    assert ran.results["release"] == "failure" and "GH013" in ran.jobs["release"].step("Release").output
    images = dict(project.hub.images)
    project.log()
    project.hub.environments["production"].secrets = secrets
    again(ran, failed=True)
    assert ran.conclusion == "success" and project.hub.images == images
    assert project.log() == ["release: push env/production", "release: comment on that was merged at main"]


def test_run_again_after_another_release(make: Make) -> None:
    """What was judged is not what is there: the release is refused, and judged anew when the whole run is run again."""
    project = make()
    secrets, project.hub.environments["production"].secrets = project.hub.environments["production"].secrets, {}
    first = ci(project)
    project.hub.environments["production"].secrets = secrets
    project.change("main", "epochs: 20")
    assert ci(project).conclusion == "success"
    again(first, failed=True)
    assert first.results["release"] == "failure"
    assert "run the whole run again" in first.jobs["release"].step("Release").output
    again(first)
    assert first.conclusion == "success", first.told()


def test_rollback_and_redeploy(make: Make) -> None:
    """A button takes a release back, though production has reviewers; a person's dispatch releases it again."""
    project = make(reviewers=True)
    approve(ci(project))
    project.change("main", "epochs: 20")
    approve(ci(project))
    project.log()
    [rollback] = project.deliver(dispatch(project.hub, "rollback.yaml", inputs={"environment": "production"}))
    assert rollback.conclusion == "success" and project.log() == ["rollback: push env/production"]
    assert rollback.jobs["rollback"].permissions == {"contents": "write"}
    assert project.releases() == 3
    [again_released] = [
        ran
        for ran in project.deliver(dispatch(project.hub, "ci.yaml", inputs={"redeploy": True}))
        if ran.workflow == "CI"
    ]
    assert approve(again_released).conclusion == "success"
    assert project.releases() == 4


@pytest.mark.parametrize("inputs", [{"redeploy": True}, {"redeploy": False}, {}])
def test_redeploy_is_said_and_never_assumed(make: Make, inputs: dict[str, bool]) -> None:
    project = make()
    ci(project)
    [ran] = [ran for ran in project.deliver(dispatch(project.hub, "ci.yaml", inputs=inputs)) if ran.workflow == "CI"]
    assert project.releases() == (2 if inputs.get("redeploy") else 1)
    assert ran.conclusion == "success"


@pytest.mark.parametrize("file", ["rollback.yaml", "ci.yaml"])
def test_buttons_on_a_branch_release_nothing(make: Make, file: str) -> None:
    """Whoever may write may start them on a branch with other contents: rights are main's."""
    project = make()
    ci(project)
    project.change("idea", notes="x")
    project.deliver()
    project.deliver(dispatch(project.hub, file, "idea"))
    assert project.releases() == 1


def test_environment_of_a_branch_that_releases(make: Make) -> None:
    """A branch may change the workflow, and still gets no key: the environments are main's."""
    project = make()
    ci(project)
    workflow = project.clone / ".github/workflows/rollback.yaml"
    text = workflow.read_text().replace("    if: github.ref == 'refs/heads/main'\n", "")
    project.change("idea", **{".github/workflows/rollback__yaml": text})
    project.hub.caused()
    [rollback] = project.deliver(dispatch(project.hub, "rollback.yaml", "idea"))
    assert rollback.conclusion == "failure" and "not allowed to deploy" in rollback.told()


def test_staging(make: Make) -> None:
    """A release goes to staging and proposes itself for production; the button does that again."""
    project = make(staging=True)
    ran = ci(project)
    assert ran.jobs["release"].environment == "staging" and ran.conclusion == "success", ran.told()
    pushed = ["release: push env/staging", "release: push env/production-next"]
    assert [line for line in project.log() if " push " in line] == pushed
    assert project.releases() == 0 and project.releases("staging") == 1
    pull = project.api.pulls[-1]
    assert (pull["head"]["ref"], pull["base"]["ref"]) == ("env/production-next", "env/production")
    pull["state"] = "closed"
    [promote] = project.deliver(dispatch(project.hub, "promote.yaml"))
    assert promote.conclusion == "success", promote.told()
    assert project.log() == ["promote: push env/production-next"] and len(project.api.pulls) == 2
    for event, asked in (
        (dispatch(project.hub, "promote.yaml", inputs={"now": True}), "NOW=1"),
        (of_main(project.hub, "schedule"), "NOW="),
    ):
        project.api.pulls[-1]["state"] = "closed"
        [promote] = [run for run in project.deliver(event) if run.file == "promote.yaml"]
        assert asked in promote.jobs["promote"].step("Promote").output.split(), promote.told()
        assert promote.conclusion == "success", promote.told()


@pytest.mark.parametrize("release", ["released", "nothing", "failed"])
@pytest.mark.parametrize("remote", ["folder", "bucket"])
def test_register(make: Make, release: str, remote: str) -> None:
    """Whatever became of the release: this is the latest point at which the registry sees a rollback."""
    project = make(remote)
    project.hub.vars["MLFLOW_TRACKING_URI"] = "https://mlflow.invalid"
    project.hub.vars["MLFLOW_TRACKING_USERNAME"] = "logs-runs"
    project.hub.environments["main"].vars["MLFLOW_TRACKING_USERNAME"] = "registers"
    if release == "failed":
        project.hub.environments["production"].secrets = {}
    ran = ci(project)
    if release == "nothing":
        project.change("main", notes="x")
        ran = ci(project)
    assert ran.results["register"] == "success" and "register: register as registers" in project.log()
    assert ran.jobs["register"].permissions == {"contents": "read", "id-token": "write"}


def test_one_that_waits_is_judged_after_the_one_before(make: Make) -> None:
    project = make()
    [first] = project.hub.caused()
    one = begin(project.hub, "ci.yaml", first)
    project.change("main", "epochs: 20")
    [second] = project.hub.caused()
    two = begin(project.hub, "ci.yaml", second)
    assert two.state == "pending"
    assert go(one).conclusion == "success" and go(two).conclusion == "success"
    assert project.releases() == 2
