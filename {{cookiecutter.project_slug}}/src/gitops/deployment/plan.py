"""Say whether a deployment would release anything (`make plan`), before an image is built for it.

Building an image twice gives two digests, so to `make deploy` every new image is something to release. This command
looks at the inputs instead: whether anything that goes into the image or the manifests has changed since the
environment's present release.
"""

from __future__ import annotations

import argparse

from gitops.core import actions, params
from gitops.core.artifacts import run
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.deployment import deploy, held
from gitops.integrations import git, kustomize
from gitops.releases import release, workspace
from gitops.releases.record import Candidate

#: Inputs of the image, besides the archive.
IMAGE_INPUTS = ("serving", "src/gitops/serving/server", "requirements/serve.txt")


def main() -> None:
    """Print the plan, and pass it to the workflow's later steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    deploy.add_redeploy_option(parser)
    arguments = parser.parse_args()
    candidate = plan(params.load(), redeploy=arguments.redeploy)
    if candidate is None:
        actions.output({"release": "false"})
        return
    name = candidate.image.rpartition(":")[0]
    echo(f"To be released: {candidate.title}, as {name}")
    actions.output(
        {
            "release": "true",
            "image": name,
            "registry": name.partition("/")[0],
            "version": candidate.model.version,
            "build-args": "\n".join(f"{key}={value}" for key, value in build_arguments(candidate).items()),
        }
    )


def plan(settings: Params, *, redeploy: bool = False) -> Candidate | None:
    """Return what `make deploy` would release, or print why nothing and return None. Raises ProjectError as it does."""
    deploy.check_source()
    environment = kustomize.first()
    present = release.present(environment)
    released = present.record.commit if present else ""
    # A commit that main has lost cannot be compared: deploy.nothing_to_release reports it.
    same_image = git.exists(released) and not git.differ(released, "HEAD", *IMAGE_INPUTS)
    candidate = workspace.candidate(settings, present.record.image if present and same_image else None)
    candidate = workspace.verified(candidate)
    if present:
        model = candidate.model
        manifests = git.write_tree(kustomize.render(candidate.image, model.name, model.sha256, environment))
        tree = manifests if same_image else ""
        if reason := deploy.nothing_to_release(candidate, tree, present, environment):
            echo(reason)
            return None
        held.check(candidate, tree, present, environment, redeploy)
    deploy.accepted(settings, candidate, present if environment == kustomize.PRODUCTION else release.production())
    return candidate.model_copy(update={"image": kustomize.default_image(candidate.model.version)})


def build_arguments(candidate: Candidate) -> dict[str, str]:
    """Return the build arguments of serving/Containerfile, which labels the image with its provenance."""
    return {
        "REVISION": candidate.commit,
        "MODEL_NAME": candidate.model.name,
        "MODEL_VERSION": candidate.model.version,
        "MODEL_SHA256": candidate.model.sha256,
        "DATA_MD5": candidate.data.md5,
        "MLFLOW_RUN": candidate.mlflow_run_id or "none",
    }


if __name__ == "__main__":
    run(main)
