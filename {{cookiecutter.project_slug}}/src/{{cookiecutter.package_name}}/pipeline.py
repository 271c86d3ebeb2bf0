"""`make pipeline`: check the settings, then let DVC get or make whatever is stale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import artifacts, params

#: DVC of this environment, whatever is on the PATH.
DVC = Path(sys.executable).with_name("dvc")


def main() -> int:
    """Return DVC's exit status: 0 when every stage's outputs are there and fit its inputs."""
    params.load()  # a wrong setting is told now, and not by the last stage that reads it
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    # --pull takes what another machine made from the remote, where it is there, and runs the rest.
    status = subprocess.run([DVC, "repro", "--pull"], env=environment, check=False).returncode
    if status == 0:
        print(
            f"model: {artifacts.MODEL}, metrics: {artifacts.METRICS}, Deepchecks reports: {artifacts.DATA_REPORT}, ",
            end="",
        )
        print(f"{artifacts.MODEL_REPORT}; commit dvc.lock together with what you changed")
    else:
        print("the pipeline stopped at the stage named above; earlier results are kept (`dvc checkout` restores them)")
    return status


if __name__ == "__main__":
    artifacts.run(main)
