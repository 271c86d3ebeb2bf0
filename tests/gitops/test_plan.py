"""`make plan`: whether a deployment would release anything, which decides whether an image is built."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from gitops.core.artifacts import ProjectError, digest
from gitops.deployment import plan
from gitops.integrations import dvc_remote, kustomize
from releases import Job, isolate, refused, render

DIGEST = f"registry.example/team/toy@sha256:{'a' * 64}"


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    monkeypatch.setattr(kustomize, "render", render)  # anew each time: these tests change what is rendered


def planned(job: Job, *, redeploy: bool = False) -> str | None:
    """Return the image that the plan is to build, or None."""
    job.gate()
    decided = job.plan(redeploy)
    return decided.candidate.image if decided else None


def released(job: Job) -> None:
    """Release a model with an image named by its digest, as CI does."""
    job.merge("Change to model A")
    job.train("model A")
    job.gate()
    assert job.deploy(DIGEST)


def test_a_first_release_is_planned(job: Job) -> None:
    job.train("model A")
    version = digest(job.path / "model/model.pt2")[:12]
    assert str(planned(job)).endswith(f":{version}")


def test_a_change_of_documents_releases_nothing(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    released(job)
    job.merge("Only documents")
    assert planned(job) is None
    assert "nothing to release" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    [
        "serving/config.properties",
        "serving/Containerfile",
        "requirements/serve.txt",
        "serving/haproxy.cfg",
        "src/gitops/serving/server/start.py",
    ],
)
def test_a_change_of_the_images_inputs_is_released(job: Job, changed: str) -> None:
    released(job)
    job.write(changed, "# another")
    job.merge("Change the server")
    assert planned(job) is not None


def test_a_change_of_the_manifests_is_released(job: Job) -> None:
    released(job)
    service = job.path / "k8s/base/service.yaml"
    service.write_text(service.read_text().replace("metadata:", "metadata:\n  annotations: {a: b}", 1))
    job.merge("Change the Service")
    assert planned(job) is not None


def test_kinds_that_the_cluster_needs_are_named_while_they_are_new(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.train("model A")
    assert planned(job)
    needed = "The release needs PrometheusRule and ServiceMonitor (monitoring.coreos.com) in the cluster"
    assert needed in capsys.readouterr().out
    released(job)
    job.merge("Change to model B")
    job.train("model B")
    capsys.readouterr()
    assert planned(job)
    assert "in the cluster" not in capsys.readouterr().out


def test_a_sync_wave_is_refused_before_an_image_is_built(job: Job) -> None:
    """Argo CD takes in no rollback while a sync waits for one."""
    released(job)
    service = job.path / "k8s/base/service.yaml"
    wave = 'metadata:\n  annotations: {argocd.argoproj.io/sync-wave: "1"}'
    service.write_text(service.read_text().replace("metadata:", wave, 1))
    job.merge("Bring the Service later")
    with pytest.raises(ProjectError, match=r"Service \S+ has the annotation argocd.argoproj.io/sync-wave: Argo CD"):
        planned(job)


def test_another_model_is_released(job: Job) -> None:
    released(job)
    job.merge("Change to model B")
    job.train("model B")
    assert planned(job) is not None


def test_an_older_commit_releases_nothing(job: Job, other: Job, capsys: pytest.CaptureFixture[str]) -> None:
    released(job)
    other.train("model 0")
    assert planned(other) is None
    assert "newer" in capsys.readouterr().out


def test_a_rewritten_main_is_an_error(job: Job, other: Job) -> None:
    released(job)
    other.write("README.md", "Another history")
    other.git("add", "--all")
    other.git("commit", "--quiet", "--message", "Another history")
    other.git("push", "--quiet", "--force", "origin", "HEAD:main")
    other.train("model B")
    with refused("was main rewritten"):
        planned(other)


def test_no_image_is_built_for_what_deploy_would_refuse(job: Job) -> None:
    job.release("model A")
    job.release("model B")
    job.rollback()
    job.merge("Only documents")
    with refused("rolled back toy .* the same model"):
        planned(job)
    assert planned(job, redeploy=True) is not None
    job.gate(accepted=False, reason="Refused: worse.")
    with refused("Refused: worse."):
        job.plan(redeploy=True)


def test_the_remote_has_all_that_the_record_names(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the explanations, where the pipeline has made some."""
    ensured: list[str] = []
    monkeypatch.setattr(dvc_remote, "ensure", lambda md5s: ensured.extend(md5s) or [])
    job.train("model A")
    job.gate()
    decided = job.plan()
    assert decided and decided.candidate.explanations
    for path in (
        "model/model.pt2",
        "package/toy.mar",
        "evaluation/predictions.parquet",
        "evaluation/explanations.json",
    ):
        assert digest(job.path / path, "md5") in ensured
    assert decided.candidate.explanations.md5 == digest(job.path / "evaluation/explanations.json", "md5")
    (job.path / "evaluation/explanations.json").unlink()
    decided = job.plan()
    assert decided and decided.candidate.explanations is None


def test_later_steps_get_the_images_build_arguments(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job.train("model A")
    job.gate()
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setattr("sys.argv", ["plan"])
    with contextlib.chdir(job.path):
        plan.main()
        text = output.read_text()
    decided = job.plan()
    assert decided
    candidate = decided.candidate
    name = candidate.image.rpartition(":")[0]
    assert f"\n{name}\n" in text
    assert f"\n{name.partition('/')[0]}\n" in text
    assert f"\nMODEL_SHA256={candidate.model.sha256}\n" in text
    assert f"\nREVISION={job.git('rev-parse', 'HEAD')}\n" in text
