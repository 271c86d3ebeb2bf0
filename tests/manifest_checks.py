"""What every rendered manifest is held to: the schema of its kind, Kubernetes' own or custom, and checkov's rules."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
from node_packages import installed, node
from projects import ROOT

SCHEMAS = ROOT / "tests/schemas"

KUBERNETES = "1.34"

#: Fields of a kind that its package does not know and that are right, as a pattern of what it says, and why.
LACKING = {
    r"^AppProject \S+: /spec/description is unknown$": "the package has it as a type, but not in its validator",
    r"^ApplicationSet \S+: \S+/github/excludeArchivedRepos is unknown$": "Argo CD 3.5 has it, the package not yet",
}

Objects = list[dict[str, Any]]


def problems(*objects: dict[str, Any]) -> list[str]:
    """Return what Kubernetes would refuse of the objects. Unknown kinds and unknown fields are refused too."""
    return [problem for problem in all_problems(*objects) if not any(re.search(known, problem) for known in LACKING)]


def all_problems(*objects: dict[str, Any]) -> list[str]:
    """Return the same with what is LACKING."""
    refused = [_refused(item) for item in objects]
    custom = [item for item, found in zip(objects, refused, strict=True) if found is None]
    said = iter(json.loads(node(installed(SCHEMAS) / "validate.mjs", text=json.dumps(custom))) if custom else [])
    all_refused = [next(said) if found is None else found for found in refused]
    return [
        f"{item['kind']} {item['metadata']['name']}: {problem}"
        for item, found in zip(objects, all_refused, strict=True)
        for problem in ([f"{item['apiVersion']} has no schema for this kind"] if found is None else found)
    ]


def _refused(item: dict[str, Any]) -> list[str] | None:
    """Return what Kubernetes refuses of an object of a kind of its own, None of another kind."""
    try:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return None
    except kubernetes_validate.ValidationError as error:
        return [f"/{'/'.join(map(str, error.path))} {error.message}"]
    return []


def checkov(folder: Path) -> dict[str, set[str]]:
    """Return check -> objects that fail it, of all YAML files in `folder`."""
    program = ROOT / ".venv/checkov/bin/checkov"
    assert program.exists(), f"{program} is missing: `make .venv/checkov` in the template"
    options = ["--framework", "kubernetes", "--output", "json", "--quiet", "--skip-download", "--soft-fail"]
    done = subprocess.run([program, "--directory", folder, *options], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 50  # it did look
    found: dict[str, set[str]] = {}
    for failure in report["results"]["failed_checks"]:
        found.setdefault(failure["check_id"], set()).add(f"{failure['check_name']}: {failure['resource']}")
    return found
