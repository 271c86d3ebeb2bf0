"""What every rendered manifest is held to: Kubernetes' own schemas, and checkov's rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
from projects import ROOT

KUBERNETES = "1.34"

#: Kinds that kubernetes-validate has no schema for: who reads one adds it here.
CUSTOM = {
    ("argoproj.io/v1alpha1", "AnalysisTemplate"),
    ("argoproj.io/v1alpha1", "AppProject"),
    ("argoproj.io/v1alpha1", "Application"),
    ("argoproj.io/v1alpha1", "ApplicationSet"),
    ("argoproj.io/v1alpha1", "Rollout"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}

Objects = list[dict[str, Any]]


def problems(item: dict[str, Any]) -> list[str]:
    """Return what Kubernetes would refuse. Unknown fields are refused too."""
    kind = (item["apiVersion"], item["kind"])
    if kind in CUSTOM:
        return []
    try:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{kind} has no schema, and is not in CUSTOM"]
    except kubernetes_validate.ValidationError as error:
        return [f"{item['kind']}: {error.message}"]
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
