"""`make sign`: with the public log for a public repository alone, by a key that nobody sees for a private one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cosign
import pytest
from defaults import ROOT

IMAGE = f"ghcr.io/team/toy@sha256:{'a' * 64}"
KEY = {"COSIGN_PRIVATE_KEY": fake_cosign.KEY, "COSIGN_PASSWORD": fake_cosign.PASSWORD}
TOKEN = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://token.example"}


class Machine:
    """A machine with cosign, and a job on it."""

    def __init__(self, folder: Path) -> None:
        self.signatures = folder / "signatures"
        self.summary = folder / "summary.md"
        self.path = folder / "bin"
        self.path.mkdir()
        program = self.path / "cosign"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_cosign.__file__} "$@"\n')
        program.chmod(0o755)

    def sign(self, image: str = IMAGE, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = ("GITHUB_", "COSIGN_", "ACTIONS_", "SIGSTORE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        environment |= {"PATH": f"{self.path}:{environment['PATH']}", "PYTHONPATH": str(ROOT / "src"), "IMAGE": image}
        environment |= {"SIGNATURES": str(self.signatures), "GITHUB_STEP_SUMMARY": str(self.summary), **variables}
        command = [sys.executable, "-m", "gitops.deployment.sign"]
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def signed(self) -> list[dict[str, Any]]:
        lines = self.signatures.read_text().splitlines() if self.signatures.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_public_image_is_signed_by_the_workflow_in_the_public_log(machine: Machine) -> None:
    done = machine.sign(PRIVATE="false", **TOKEN, **KEY)  # a key is left from when it was private
    assert done.returncode == 0, done.stderr
    [signature] = machine.signed()
    assert (signature["image"], signature["by"]) == (IMAGE, "workflow")
    assert "rekor" in signature["services"]


def test_without_an_id_token_nothing_is_signed_and_cosigns_reason_is_shown(machine: Machine) -> None:
    done = machine.sign(PRIVATE="false")
    assert done.returncode == 1 and "error obtaining token" in done.stdout
    assert done.stderr == "error: `cosign sign` ended with status 1; the reason stands above\n"


@pytest.mark.parametrize("private", ["true", "", "False"])
def test_a_private_image_is_signed_by_the_key_and_no_service_hears_of_it(machine: Machine, private: str) -> None:
    """What is not said to be public is private: the log would keep its name for good."""
    done = machine.sign(PRIVATE=private, **KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    [signature] = machine.signed()
    assert (signature["image"], signature["by"], signature["services"]) == (IMAGE, "key", [])
    shown = done.stdout + done.stderr + json.dumps(signature["arguments"])
    assert "c2VjcmV0" not in shown and fake_cosign.PASSWORD not in shown


def test_a_private_image_without_a_key_is_not_signed_and_the_run_says_so(machine: Machine) -> None:
    done = machine.sign(PRIVATE="true", GITHUB_ACTIONS="true", **TOKEN)
    assert done.returncode == 0 and machine.signed() == []
    [warning] = [line for line in done.stdout.splitlines() if line.startswith("::warning ")]
    for text in (warning, machine.summary.read_text()):
        assert "`make github` makes one" in text


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"COSIGN_PRIVATE_KEY": fake_cosign.KEY}, "COSIGN_PASSWORD is not"),
        ({**KEY, "COSIGN_PASSWORD": "wrong"}, "decryption failed"),
        ({**KEY, "PATH": "/nowhere"}, "cosign is not on PATH"),
        ({**KEY, "IMAGE": "ghcr.io/team/toy:1"}, "NAME@sha256:DIGEST is needed"),
        ({**KEY, "IMAGE": f"--key=x@sha256:{'a' * 64}"}, "NAME@sha256:DIGEST is needed"),
        ({**KEY, "IMAGE": ""}, "NAME@sha256:DIGEST is needed"),
    ],
)
def test_what_cannot_be_signed_is_an_error(machine: Machine, variables: dict[str, str], reason: str) -> None:
    done = machine.sign(**{"PRIVATE": "true", **variables, "image": variables.get("IMAGE", IMAGE)})
    assert done.returncode == 1 and machine.signed() == []
    assert reason in done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["sign", "--yes", "--tlog-upload=false", "--key", "env://COSIGN_PRIVATE_KEY", IMAGE], "is not supported"),
        (["sign", "--yes", "--key", "env://ANOTHER", IMAGE], "not found"),
        (["sign", "--yes", "--no-log", IMAGE], "unknown flag"),
    ],
)
def test_the_stand_in_refuses_what_cosign_refuses(machine: Machine, arguments: list[str], reason: str) -> None:
    command = [machine.path / "cosign", *arguments]
    environment = {**os.environ, **KEY, "SIGNATURES": str(machine.signatures)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and reason in done.stderr
