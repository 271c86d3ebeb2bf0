"""Decide what a deployment releases (`make plan`), before an image is built for it and people review the release.

Building an image twice gives two digests, so to `make deploy` every new image is something to release. This command
looks at the inputs instead: whether anything that goes into the image or the manifests has changed since the
environment's present release.

If so, all that the release record will reference is pushed to the DVC remote, and the plan is written (planned.py).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from gitops.core import actions, params
from gitops.core.artifacts import GATE, ProjectError, read_json, replacing, run, write_text
from gitops.core.console import annotate, echo
from gitops.core.params import Params
from gitops.debt import score
from gitops.deployment import deploy, held, planned
from gitops.deployment.planned import Plan
from gitops.design import model_card
from gitops.integrations import argo_cd, dvc, dvc_remote, git, kustomize
from gitops.releases import release, workspace
from gitops.releases.record import Candidate, Deployed, GateResult

#: Inputs of the image, besides the archive.
IMAGE_INPUTS = ("serving", "src/gitops/serving/server", "requirements/serve.txt")


def main() -> None:
    """Print the plan, and pass it to the workflow's later steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_image_option(parser)
    deploy.add_redeploy_option(parser)
    arguments = parser.parse_args()
    decided = plan(params.load(), arguments.image, redeploy=arguments.redeploy)
    if decided is None:
        actions.output({"release": "false"})
        return
    candidate = decided.candidate
    name = kustomize.default_image(candidate.model.version).rpartition(":")[0]
    echo(f"To be released: {candidate.title}, as {arguments.image or name} ({planned.PATH})")
    actions.output(
        {
            "release": "true",
            "image": name,
            "registry": name.partition("/")[0],
            "version": candidate.model.version,
            "build-args": "\n".join(f"{key}={value}" for key, value in build_arguments(candidate).items()),
        }
    )


def plan(settings: Params, image: str | None = None, *, redeploy: bool = False) -> Plan | None:
    """Write the plan and return it, or print why there is nothing to release and return None.

    Raises ProjectError where the model may not be released, and where what the record references cannot be pushed. An
    earlier plan is gone in any case.
    """
    shutil.rmtree(planned.FOLDER, ignore_errors=True)
    decided = decide(settings, image, redeploy=redeploy)
    if decided:
        echo("Pushing data, model and reports to the DVC remote ...")
        push(decided.candidate)
        if dvc_remote.in_repository():
            archive = Path(decided.candidate.package.path)
            with replacing(planned.ARCHIVES / archive.name) as temporary:
                shutil.copyfile(archive, temporary)
        write_text(planned.PATH, f"{decided.model_dump_json(indent=2)}\n")
    return decided


def decide(settings: Params, image: str | None = None, *, redeploy: bool = False) -> Plan | None:
    """Return what is to be released, or print why nothing is and return None. Raises ProjectError as `plan` does."""
    deploy.check_source()
    environment = kustomize.first()
    present = release.present(environment)
    released = present.record.commit if present else ""
    # A commit that main has lost cannot be compared: deploy.nothing_to_release reports it.
    same_image = image is None and git.exists(released) and not git.differ(released, "HEAD", *IMAGE_INPUTS)
    running = present.record.image if present and same_image else image
    candidate = workspace.verified(workspace.candidate(settings, running))
    model = candidate.model
    rendered = kustomize.render(candidate.image, model.name, model.sha256, environment)
    manifests = git.write_tree(rendered)
    if present:
        tree = manifests if same_image or image else ""
        if reason := deploy.nothing_to_release(candidate, tree, present, environment):
            echo(reason)
            return None
        held.check(candidate, tree, present, environment, redeploy)
    for line in argo_cd.needed(rendered, release.manifests(present.commit) if present else {}):
        echo(line)
        annotate("warning", "Before this is released", line)
    production = present if environment == kustomize.PRODUCTION else release.production()
    image = image or kustomize.default_image(model.version)
    named = candidate.model_copy(update={"image": image, **score.recorded(score.of(settings))})
    card = model_card.write(settings, [], candidate.commit, candidate.training)
    return Plan(candidate=named, gate=accepted(candidate, production), card=card)


def accepted(candidate: Candidate, production: Deployed | None) -> GateResult:
    """Return the gate's result for the candidate against the present production. Raises ProjectError if it refuses."""
    result = read_json(GATE, "make gate")
    if result["model_sha256"] != candidate.model.sha256:
        raise ProjectError(f"{GATE} is about another model: run `make gate` again")
    if result["release"] != (production.commit if production else None):
        raise ProjectError(f"{GATE} compares with another release than production's: run `make gate` again")
    if result["accepted"] is not True:
        raise ProjectError(f"{result['reason']} ({GATE}; fix that, then run `make gate` again)")
    return GateResult.model_validate(result)


def push(candidate: Candidate) -> None:
    """Push everything that the record references, which must be retrievable before the release. Raises ProjectError."""
    dvc.push()
    md5s = [candidate.model.md5, candidate.package.md5, candidate.predictions.md5, candidate.test_md5]
    md5s += [candidate.explanations.md5] if candidate.explanations else []
    for md5 in dvc_remote.ensure(md5s):
        echo(f"The remote had other contents under the name {md5}: they are replaced.")


def build_arguments(candidate: Candidate) -> dict[str, str]:
    """Return the build arguments of serving/Containerfile, which labels the image with its provenance."""
    return {
        "REVISION": candidate.commit,
        "MODEL_NAME": candidate.model.name,
        "MODEL_VERSION": candidate.model.version,
        "MODEL_SHA256": candidate.model.sha256,
        "DATA_MD5": candidate.data_md5,
        "MLFLOW_RUN": candidate.mlflow_run_id or "none",
    }


if __name__ == "__main__":
    run(main)
