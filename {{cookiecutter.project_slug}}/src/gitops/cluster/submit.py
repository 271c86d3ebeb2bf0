"""Submit the training of the checked-out commit to a cluster (`make train-on-cluster`), as a TrainJob.

For a person, or a runner inside the cluster, with the rights of the Role `train`. What a pod would fail by is checked
before: the commit is on origin, what is before the training is in the DVC remote, the image has a digest. The TrainJob
is created, never applied: one that is there is left alone. Its result comes back through the DVC remote (node.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from gitops.cluster import train_job
from gitops.cluster.train_job import Training
from gitops.core import params
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo, one_line
from gitops.integrations import dvc, dvc_remote, dvc_stages, git
from gitops.releases import trained, workspace
from gitops.releases.trained import STAGE

#: Where the jobs' image is named.
JOBS = Path("k8s/components/jobs/kustomization.yaml")

#: Arguments that go into a command or an object: a name of Kubernetes', and an image by its digest.
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
IMAGE = r"[a-z0-9]([\w./:-]*[a-z0-9])?@sha256:[0-9a-f]{64}"

#: How to have the results before the training without a training here.
PREPARE = "run `.venv/pipeline/bin/dvc repro --pull {stages}`, then `make push`, and commit and push dvc.lock"


def main() -> None:
    """Check, render and submit the TrainJob; with --dry-run print it instead."""
    options = _options()
    training = Training(_commit(), _image(options.image), options.nodes, _processes(options.nodes), options.queue)
    job = train_job.render(training)
    _require_data()
    if options.dry_run:
        echo(yaml.safe_dump(job, sort_keys=False).rstrip())
        return
    name = job["metadata"]["name"]
    _create(job, options.namespace)
    echo(
        f"TrainJob {name} is created: {training.nodes} node(s) with {training.processes} process(es) each; `kubectl "
        f"get trainjob {name} --watch` shows it. Once it is complete, `make pipeline`, here and in the pull request's "
        "run, takes the model over"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train-on-cluster", description=(__doc__ or "").partition("\n")[0])
    variable = os.environ.get
    parser.add_argument("--image", default=variable("IMAGE") or None, help=f"NAME@sha256:DIGEST; that of {JOBS} if not")
    parser.add_argument("--nodes", default=variable("NODES") or "1", help="among which train.processes are divided")
    parser.add_argument("--queue", default=variable("QUEUE") or None, help="Kueue's LocalQueue")
    parser.add_argument("--namespace", default=variable("NAMESPACE") or None, help="kubectl's own if not")
    parser.add_argument("--dry-run", action="store_true", help="check, and print the TrainJob")
    options = parser.parse_args()
    for name in ("queue", "namespace"):
        value = getattr(options, name)
        if value is not None and not re.fullmatch(LABEL, value):
            raise ProjectError(f"{name.upper()} is {one_line(value, 80)!r}: a name of lower-case letters, digits and -")
    if not re.fullmatch(r"[1-9]\d{0,3}", options.nodes) or int(options.nodes) > train_job.MOST_NODES:
        nodes = one_line(options.nodes, 80)
        raise ProjectError(f"NODES is {nodes!r}: a number from 1 to {train_job.MOST_NODES} is needed")
    options.nodes = int(options.nodes)
    return options


def _commit() -> str:
    """Return the commit that is checked out. Raises ProjectError where files differ from it or origin lacks it."""
    workspace.require_committed("pods train the commit that is checked out")
    commit = git.run("rev-parse", "HEAD")
    if not git.has_remote():
        raise ProjectError(f"this repository has no remote {git.REMOTE}, from which pods could fetch the commit")
    tips = {line.split("\t")[0] for line in git.run("ls-remote", "--heads", git.REMOTE).splitlines()}
    if commit not in tips and not any(git.exists(tip) and git.is_ancestor(commit, tip) for tip in tips):
        raise ProjectError(f"commit {commit[:12]} is on no branch of {git.REMOTE}, where pods fetch it: `git push`")
    return commit


def _image(given: str | None) -> str:
    """Return the jobs' image by its digest: `given`, or that of the component `jobs`. Raises ProjectError."""
    if given is not None:
        if not re.fullmatch(IMAGE, given):
            raise ProjectError(f"IMAGE is {one_line(given, 200)!r}: NAME@sha256:DIGEST is needed, a tag may change")
        return given
    try:
        entries = yaml.safe_load(JOBS.read_text(encoding="utf-8"))["images"]
        (entry,) = [entry for entry in entries if entry["name"] == "jobs"]
        image = f"{entry['newName']}@{entry.get('digest')}"
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise ProjectError(f"{JOBS}: images needs an entry with name 'jobs', newName and digest") from None
    if not re.fullmatch(IMAGE, image):
        raise ProjectError(
            f"{JOBS}: the image 'jobs' has no digest (sha256:...): `make jobs-image IMAGE=NAME:TAG` builds and pushes "
            "it; put its digest there, or name it by IMAGE=NAME@sha256:DIGEST"
        )
    return image


def _processes(nodes: int) -> int:
    """Return the processes of a node. Raises ProjectError where train.processes cannot be divided."""
    total = _total()
    if total % nodes:
        raise ProjectError(
            f"train.processes is {total}, which {nodes} nodes cannot share: a multiple of NODES is needed"
        )
    return total // nodes


def _total() -> int:
    """Return train.processes; an owner's own section need not have it."""
    return int(params.load().train.model_dump().get("processes", 1))


def _require_data() -> None:
    """Raise ProjectError unless pods get all that `train` reads from the DVC remote, and have something to train."""
    if dvc_remote.on_this_machine():
        raise ProjectError(
            "the DVC remote is a folder of this machine, which a pod does not see: a bucket is needed. "
            "`.venv/pipeline/bin/dvc remote modify storage url s3://BUCKET/PATH`, its package in "
            'requirements/pipeline.in (docs/system-design.md, "Addresses"), `make lock push`, and commit .dvc/config'
        )
    before = dvc_stages.around(STAGE, sources=True).before
    stages = [name for name in before if not name.endswith(".dvc")]
    mend = PREPARE.format(stages=stages[-1] if stages else STAGE)
    if stale := sorted({*before} & {*dvc.stale()}):
        raise ProjectError(f"{', '.join(stale)}: out of date or missing here: {mend}")
    here, committed = dvc_stages.lock(), dvc_stages.lock_of("HEAD")
    if differing := [name for name in stages if here.get(name) != committed.get(name)]:
        raise ProjectError(f"the commit's dvc.lock has other results of {', '.join(differing)} than are here: {mend}")
    if lacking := dvc_remote.lacks(before):
        raise ProjectError(f"the DVC remote lacks {', '.join(lacking[:5])}, which pods read there: {mend}")
    computed = dvc_stages.entry(STAGE)
    wanted, files = trained.inputs(computed), [out["path"] for out in computed["outs"]]
    if not dvc_stages.runs(STAGE) or next(trained.shared(wanted, files), None):
        raise ProjectError("nothing to train: the model of this commit is here or shared already; `make pipeline`")


def _create(job: dict[str, Any], namespace: str | None) -> None:
    """Create the object by kubectl. Raises ProjectError, with what to do where that is known."""
    # Strictly: an older Trainer would drop the fields that it does not know, and with them what restricts the pod.
    command = ["kubectl", "create", "--validate=strict", "--request-timeout=60s", "--filename=-"]
    command += [f"--namespace={namespace}"] if namespace else []
    try:
        done = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, check=False)
    except OSError as error:
        raise ProjectError(f"kubectl cannot be run ({error.strerror}): is it installed, and on PATH?") from None
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace"), 1000)
        raise ProjectError(f"the cluster does not take the TrainJob{_advice(said, job['metadata']['name'])} ({said})")


def _advice(said: str, name: str) -> str:
    """Return what a refusal of kubectl's means, and what to do, or nothing."""
    for pattern, meaning in (
        (
            r"\(AlreadyExists\)",
            f"{name} is there, so this commit is trained or was: `kubectl get trainjob {name}`; to train it again, "
            f"`kubectl delete trainjob {name}` first",
        ),
        (
            r"TrainingRuntime must be created",
            f"it lacks the runtime that {train_job.MANIFEST} names: install Kubeflow Trainer's runtimes",
        ),
        (
            r"no matches for kind|could not find the requested resource|unknown field",
            "Kubeflow Trainer 2.2 or later is not installed there",
        ),
        (
            r"cannot create resource",
            "you may not create TrainJobs there: who may has the Role `train` of that namespace",
        ),
        (r"namespaces .* not found", "there is no such namespace: NAMESPACE=..."),
    ):
        if re.search(pattern, said):
            return f": {meaning}"
    return ""


if __name__ == "__main__":
    run(main)
