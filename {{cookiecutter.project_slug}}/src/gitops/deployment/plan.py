"""Say whether a deployment would release anything (`make plan`), before an image is built for it.

Images are not the same bytes twice, so `make deploy` sees in every new digest something to release. Here the question
is whether what goes into the image has changed since the release that the environment has, and what goes around it.
"""

from __future__ import annotations

import argparse

from gitops.core import actions, params
from gitops.core.artifacts import run
from gitops.core.params import Params
from gitops.deployment import deploy
from gitops.integrations import git, kustomize
from gitops.releases import release
from gitops.releases.release import Candidate

#: What the image is built from, beside the archive.
IMAGE_INPUTS = ("serving", "requirements/serve.txt")


def main() -> None:
    """Print the plan, and hand it to the workflow's later steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    deploy.add_redeploy_option(parser)
    arguments = parser.parse_args()
    candidate = plan(params.load(), redeploy=arguments.redeploy)
    if candidate is None:
        actions.output({"release": "false"})
        return
    name = candidate.image.rpartition(":")[0]
    print(f"To be released: {candidate.title}, as {name}")
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
    """Return what `make deploy` would release, or None, having said why. Raises ProjectError as deploy.deploy does."""
    deploy.check_source()
    environment = kustomize.first()
    present = release.present(environment)
    released = present.record.commit if present else ""
    # A commit that main has lost cannot be compared: deploy.why_not tells of it.
    same_image = git.exists(released) and not git.differ(released, "HEAD", *IMAGE_INPUTS)
    candidate = deploy.up_to_date(settings, present.record.image if present and same_image else None)
    if present:
        model = candidate.model
        manifests = git.write_tree(kustomize.render(candidate.image, model.name, model.sha256, environment))
        if needless := deploy.why_not(candidate, manifests if same_image else "", present, environment):
            print(needless)
            return None
        if not redeploy:
            deploy.refuse_rolled_back(candidate, present, environment)
    deploy.judged(settings, candidate, present if environment == kustomize.PRODUCTION else release.production())
    return candidate.model_copy(update={"image": kustomize.default_image(candidate.model.version)})


def build_arguments(candidate: Candidate) -> dict[str, str]:
    """Return the arguments of serving/Containerfile, which become labels: where what is in the image came from."""
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
