"""A repository of the stand-in for GitHub that holds one workflow, of the steps that a test asks about."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

from workflow_events import push
from workflow_hub import Hub
from workflow_runner import Run, run

#: A workflow of the tests' own, without the steps of its one job.
PROBE = """
name: Probe
on:
  push:
    branches: [main]
permissions: {}
concurrency:
  group: probe
  cancel-in-progress: false
jobs:
  probe:
    name: probe
    runs-on: ubuntu-24.04
    permissions: PERMISSIONS
    steps:
"""
CHECK_OUT = """
- name: Check out
  uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1  # v7.0.1
  with:
    fetch-depth: 0
    persist-credentials: false
"""
UPLOAD = "actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a  # v7.0.1"


def hub_of(folder: Path, source: Path) -> Hub:
    """Return a hub with a clone of `source`."""
    subprocess.run(["git", "clone", "--quiet", "--bare", source, folder / "origin.git"], check=True)
    return Hub(folder / "hub", folder / "origin.git")


def probe_hub(folder: Path, steps: str, permissions: str = "{}", more: str = "") -> Hub:
    """Return the hub of a repository that holds a workflow of these steps and nothing else."""
    source = folder / "source"
    (source / ".github/workflows").mkdir(parents=True)
    text = PROBE.replace("PERMISSIONS", f"{permissions}{more}") + textwrap.indent(textwrap.dedent(steps), "      ")
    (source / ".github/workflows/probe.yaml").write_text(text)
    git = ["git", "-C", str(source)]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "Probe"], check=True)
    hub = hub_of(folder, source)
    hub.secrets = {"TOKEN": "the-secret"}
    return hub


def probe(folder: Path, steps: str, permissions: str = "{}") -> Run:
    """Run steps for a push to main."""
    hub = probe_hub(folder, steps, permissions)
    return run(hub, "probe.yaml", push(hub))
