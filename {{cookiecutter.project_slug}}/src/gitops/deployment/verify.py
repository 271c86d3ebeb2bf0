"""Evaluate the model of this commit as main does before a release (`make verify`): by its own code alone.

What a branch brings is a claim, and so is whatever lies in DVC's cache, its remote and its run cache. Every stage but
`train` runs again here, from this commit's code and data. The trained model is taken over from the branch that trained
it (releases/trained.py), if what it was trained from equals what was just computed here, and nothing in it runs when it
is read. Where there is none, and always with TRAIN_ON_MAIN=1, `train` runs here too: only that helps against a branch
that trained on other rows than it says, as those of the test split. Results that the branch claims for the same inputs
must equal those here (claims.py), or nothing is released.

The result is reports/verification.json, which `make plan` and `make deploy` require.
"""

from __future__ import annotations

import os
from typing import Any

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import GATE, MODEL, VERIFICATION, ProjectError, digest, run
from gitops.core.console import annotate, echo, one_line
from gitops.deployment import claims
from gitops.integrations import dvc, dvc_stages
from gitops.releases import trained, workspace
from gitops.releases.trained import STAGE
from gitops.rendering.markdown import plain


def main() -> None:
    """Verify the commit that is checked out, and write reports/verification.json."""
    for path in (VERIFICATION, GATE):  # the gate comes after this, on what is computed here
        path.unlink(missing_ok=True)
    params.load()  # a wrong setting fails here, and not in the last stage that reads it
    workspace.require_nothing_made(allowed="dvc-remote/")  # the folder remote: what its objects are is checked
    workspace.require_committed("a commit is verified")
    found = verify(train=os.environ.get("TRAIN_ON_MAIN") == "1")
    artifacts.write_json(VERIFICATION, found)
    where = "trained here" if found["trained_on"] == "main" else f"taken over from {found['source']}"
    echo(f"verified: model {found['model_sha256'][:12]}, {where}; {found['compared']} other results compared")


def verify(*, train: bool) -> dict[str, Any]:
    """Run the stages and return the contents of reports/verification.json. Raises ProjectError where a check fails."""
    own = dvc_stages.lock()
    before, after = dvc_stages.around(STAGE)
    dvc.pull_data()
    dvc_stages.reproduce(before)
    computed = dvc_stages.entry(STAGE)
    wanted, files = trained.inputs(computed), [out["path"] for out in computed["outs"]]
    found = list(trained.claims(wanted, own, files))
    taken = None if train else next((claim for claim in found if trained.take_over(claim, wanted, files)), None)
    if taken:
        dvc_stages.commit(STAGE)
    else:
        echo("training here: " + ("TRAIN_ON_MAIN is 1" if train else "no branch has shared a model of these inputs"))
        dvc_stages.reproduce([STAGE])
    dvc_stages.reproduce(after)
    dvc_stages.check_outputs()
    differing, compared = claims.differences(found, dvc_stages.lock())
    if differing:
        refuse(differing)
    return {
        "model_sha256": digest(MODEL),
        "lock_sha256": digest(dvc.LOCK),
        "trained_on": "branch" if taken else "main",
        "training_inputs": trained.key(wanted),
        "source": taken.source if taken else None,
        "compared": compared,
    }


def refuse(differing: list[str]) -> None:
    """Raise ProjectError, and tell on the run's page too, which results of the branch are not those of its code."""
    lines = "; ".join(one_line(line, 200) for line in differing[:10])
    reason = f"results of the branch are not what its code computes: {lines}"
    annotate("error", "Not released", reason)
    actions.summarise(f"### Not released\n\n{plain(reason, 4000)}")
    raise ProjectError(
        f"{reason}. Nothing is released: find out who wrote them. If they come from an honest machine that computes "
        "otherwise, commit without dvc.lock, or set TRAIN_ON_MAIN=1"
    )


if __name__ == "__main__":
    run(main)
