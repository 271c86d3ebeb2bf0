"""The machine that a job runs on: what of the caller's its steps see, and what GitHub tells each of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow_job import JobRun

#: Of the caller's environment a job sees this: where programs are, and how packages are had.
HANDED_DOWN = r"(?i)PATH|PYTHON|LANG|LC_\w+|TZ|TMPDIR|\w*(SSL|CA_BUNDLE|CA_CERTS)\w*|\w+_proxy|(PIP|UV)_\w+|TORCH_INDEX"

#: What pip and uv find in the caller's home, which is not the job's: settings, and caches that save time.
PACKAGES = {
    "PIP_CONFIG_FILE": ".config/pip/pip.conf",
    "UV_CONFIG_FILE": ".config/uv/uv.toml",
    "PIP_CACHE_DIR": ".cache/pip",
    "UV_CACHE_DIR": ".cache/uv",
}

#: Of the context `github`, what every step has as GITHUB_NAME too.
TOLD = (
    *("actor", "api_url", "base_ref", "event_name", "head_ref", "ref", "ref_name", "repository", "repository_owner"),
    *("run_attempt", "run_id", "server_url", "sha"),
)

#: Seconds after which a step is ended.
TIMEOUT = 900


class Failed(Exception):
    """The step fails, with this as its output."""


def variables(job: JobRun, files: dict[str, Path]) -> dict[str, str]:
    """Return the variables of every step. The token is not among them: a step has it where its `env` says so."""
    found = {name: value for name, value in os.environ.items() if re.fullmatch(HANDED_DOWN, name)}
    for name, path in PACKAGES.items():
        if (Path.home() / path).exists():
            found.setdefault(name, str(Path.home() / path))
    found |= job.hub.machine
    found |= {f"GITHUB_{name.upper()}": str(job.contexts["github"][name]) for name in TOLD}
    if job.permissions.get("id-token") == "write":
        found["ACTIONS_ID_TOKEN_REQUEST_URL"] = f"{job.hub.url}/id-token"
    return found | {
        "PATH": os.pathsep.join([*job.path, found["PATH"]]),
        "HOME": str(job.temporary),
        "GIT_CONFIG_NOSYSTEM": "1",
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_JOB": job.id,
        "GITHUB_WORKSPACE": str(job.workspace),
        "GITHUB_EVENT_PATH": str(files["event"]),
        "GITHUB_OUTPUT": str(files["output"]),
        "GITHUB_STEP_SUMMARY": str(files["summary"]),
    }
