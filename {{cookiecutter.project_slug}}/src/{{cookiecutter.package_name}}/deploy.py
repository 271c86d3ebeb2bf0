"""Release the workspace's model (`make deploy`): one commit on env/production with manifests and release record.

Argo CD follows that branch; nothing else reaches the cluster. A release is what runs: manifests and model archive. Where
production has both already, as after a merge of documents, no commit is made, and a job for an older commit of main never
replaces a newer release.

After a rollback, main still holds what was taken back, and any merge would bring it out again. A model or an archive
whose last appearance on env/production ended by going back is therefore refused, however the branch went back (`make
rollback` and `git revert` look the same here: the commit's tree is that of an earlier commit).
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from . import gate, git, kustomize, params, release, store
from .artifacts import GATE, MODEL, ProjectError, digest, read_json, run
from .params import Params
from .release import BRANCH, MAIN, MANIFESTS, RECORD, Production, Release

#: `dvc repro` writes it, and CI, which commits nothing to main, leaves it changed. What it says is checked by itself.
DERIVED = {"dvc.lock"}


def main() -> None:
    """Release what lies in the workspace, or say why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_image_option(parser)
    parser.add_argument(
        "--redeploy",
        action="store_true",
        default=os.environ.get("REDEPLOY") == "1",
        help="release a model that was rolled back (also REDEPLOY=1)",
    )
    arguments = parser.parse_args()
    deploy(params.load(), arguments.image, arguments.redeploy)


def deploy(settings: Params, image: str | None, redeploy: bool) -> str | None:
    """Release the workspace and return the new commit of env/production; None where there is nothing to release.

    `image` is the image's reference (default: kustomize.default_image). Raises ProjectError for whatever speaks against
    the release.
    """
    check_source()
    check_pipeline()
    sha256 = digest(MODEL)
    rendered = kustomize.render(image or kustomize.default_image(sha256[:12]), settings.package.model_name, sha256)
    manifests = git.write_tree(rendered)
    pushed = False

    def make(present: Production | None, again: bool) -> str | None:
        nonlocal pushed
        made = release.candidate(...)
        return ""

    return release.publish(make)
