"""`make demo`: the whole loop on this machine, in demo/, with the commands that a user would type.

Generate, set up, release the default; change a parameter on a branch, run the steps of a pull request, write the
report; merge, release; predict with the model in the manifest; roll back and predict with the previous one. Then drift,
retraining and its release (demo_drift.py). At the end it prints a table and writes demo/summary.json. A folder stands
in for GitHub (demo/origin.git); everything else is real. What a user would not wait for runs meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import yaml

TEMPLATE = Path(__file__).resolve().parents[1]
DEMO = TEMPLATE / "demo"
PROJECT = DEMO / "breast-cancer"
ORIGIN = DEMO / "origin.git"

#: The change that the demo's pull request proposes.
BRANCH = "more-dropout"
CHANGE = ("dropout: 0.1", "dropout: 0.3")
EDIT = f"sed -i.bak 's/{CHANGE[0]}/{CHANGE[1]}/' params.yaml && rm params.yaml.bak"  # macOS' sed needs the suffix

#: For Git on a machine without a configured identity.
IDENTITY = {"NAME": "Demo", "EMAIL": "demo@localhost"}
ENVIRONMENT = os.environ | {
    f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in IDENTITY.items()
}
# Variables of the template's own make and environment must not reach the project.
for name in ("ARGS", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MLFLOW_TRACKING_URI"):
    ENVIRONMENT.pop(name, None)
# Nor those of a job on GitHub: this is a person's machine, where a retraining proposes what it has trained.
ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("GITHUB_")}

#: What the workflow CI does on main.
RELEASE = (
    ("evaluate main by its own code", "make verify"),
    ("run the gate", "make gate"),
    ("plan the release", "make plan"),
    ("release it", "make deploy"),
)

#: How many steps the demo has beside three releases, and how many more with --tests.
OTHER, MORE = 22, 5

STEPS: list[dict[str, Any]] = []
STARTED = time.monotonic()

#: Of how many steps the progress is told, once that is known.
TOTAL: list[int] = []


def main() -> None:
    """Run the demo; a step that fails ends it with that step's exit status."""
    import demo_drift  # it imports this module

    parser = argparse.ArgumentParser(description="One turn of the loop on this machine, in demo/.")
    more = "run the project's linters and unit tests too, and watch production once more at the end"
    parser.add_argument("--tests", action="store_true", help=more)
    tested = parser.parse_args().tests
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as an exception, so that the server is stopped
    TOTAL.append(3 * len(RELEASE) + OTHER + (MORE if tested else 0))
    origin_and_project()
    chapter("The default goes to production")
    release()  # main trains what no branch has trained
    first = production()

    chapter("A pull request")
    step("open a branch", f"git switch --quiet -c {BRANCH}")
    propose()
    if tested:
        step("check formats and types", "make lint")
        step("run the unit tests", "make test")
    step("train the candidate", "make pipeline")
    step("run the gate against production", "make gate")
    step("write the report", "make report")
    step(
        "commit its lock",
        "git add dvc.lock",
        "git commit --quiet -m 'Train with more dropout'",
        f"git push --quiet origin {BRANCH}",
    )

    chapter("Merge, release")
    merge = f"git merge --quiet --no-ff -m 'Merge {BRANCH}' {BRANCH}"
    step("merge", "git switch --quiet main", merge, "git push --quiet origin main")
    release()
    second = production()
    if first["release"]["model"]["version"] == second["release"]["model"]["version"]:
        raise SystemExit("the second release names the first one's model: the merge released nothing")
    with served() as url:
        prediction = predict("predict with the released model", url, second)

    chapter("Roll back")
    step("take the release back", "make rollback")
    third = production()
    if third["manifest"] != first["manifest"]:
        raise SystemExit("the rollback's manifest is not that of the first release")
    step("revert it on main as well", "git revert --no-edit -m 1 HEAD", "git push --quiet origin main")
    with served() as url:
        rolled_back = predict("predict with the model before", url, third)
        demo_drift.drift(url)
    retrained = demo_drift.retrained_release(again=tested)
    finish(second, prediction, rolled_back, retrained["release"])


def origin_and_project() -> None:
    """Create demo/ from scratch, but keep an earlier demo's environments: `make setup` updates them if necessary."""
    chapter("Generate a project")
    kept = DEMO / ".venv"
    if (PROJECT / ".venv").exists():
        shutil.rmtree(kept, ignore_errors=True)
        (PROJECT / ".venv").rename(kept)
    for path in (PROJECT, ORIGIN):
        shutil.rmtree(path, ignore_errors=True)
    DEMO.mkdir(exist_ok=True)
    cookiecutter = Path(sys.executable).with_name("cookiecutter")
    shown = "cookiecutter --no-input --output-dir demo ."
    step(
        "generate",
        shown,
        run=lambda: subprocess.run([cookiecutter, *shown.split()[1:]], cwd=TEMPLATE, env=ENVIRONMENT, check=True),
    )
    if kept.exists():
        kept.rename(PROJECT / ".venv")
    step("make the environments", "make setup")
    step(
        "create its origin",
        "git init --quiet --bare ../origin.git",
        "git remote add origin ../origin.git",
        "git push --quiet -u origin main",
    )


def release() -> None:
    """Release main, as the workflow CI does."""
    for name, command in RELEASE:
        step(name, command)


def propose() -> None:
    """Change one parameter and commit."""
    params = PROJECT / "params.yaml"
    text = params.read_text(encoding="utf-8")
    if text.count(CHANGE[0]) != 1:
        raise SystemExit(f"params.yaml has no single {CHANGE[0]!r} for the demo to change")
    step(
        "change a parameter", EDIT, "git commit --quiet -am 'Try more dropout'", f"git push --quiet -u origin {BRANCH}"
    )


def production() -> dict[str, Any]:
    """Return the release record and the manifest of the Deployment on env/production, as Argo CD would read them."""

    def show(path: str) -> str:
        command = ["git", "--git-dir", str(ORIGIN), "show", f"env/production:{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    names = show("manifests/").splitlines()[2:]
    manifest = next(
        text
        for text in (show(f"manifests/{name}") for name in names)
        if re.search("^kind: Deployment$", text, re.MULTILINE)
    )
    return {"release": json.loads(show("release.json")), "manifest": manifest}


def predict(name: str, url: str, released: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the server; the answer must come from the model in the manifest."""
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        rows = json.loads((PROJECT / "package/golden_request.json").read_text(encoding="utf-8"))["instances"]
        body = json.dumps({"instances": rows[:1]}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answers.append(json.load(response))
        print(json.dumps(answers[0]))

    step(name, "curl ... /predictions/...", run=ask)
    named = yaml.safe_load(released["manifest"])["spec"]["template"]["metadata"]["annotations"]["model-sha256"]
    if answers[0]["model_version"] != named[:12]:
        raise SystemExit(f"the answer comes from model {answers[0]['model_version']}, the manifest names {named[:12]}")
    return answers[0]


@contextmanager
def served() -> Iterator[str]:
    """Run `make serve` for production and yield the address it prints; stop it as Ctrl-C would."""
    arguments = "--environment production --port 0"
    command = ["make", "serve", f"ARGS={arguments}"]
    server = subprocess.Popen(command, cwd=PROJECT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, process_group=0)
    found: list[str] = []

    def wait() -> None:
        for line in iter(server.stdout.readline, "") if server.stdout else ():
            print(line, end="", flush=True)
            if address := re.search(r"^curl \S+ (http://\S+)", line):
                found.append(address[1])
                return
        raise SystemExit("make serve ended before it answered")

    try:
        step("serve what is released", f'make serve ARGS="{arguments}" &', run=wait)
        yield found[0]
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=60)


@contextmanager
def meanwhile(name: str, command: str) -> Iterator[None]:
    """Run a step's command beside the steps of the block, and print what it has printed after them."""
    print(f"\n-- meanwhile: {name}", f"$ {command} &", sep="\n", flush=True)
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(["bash", "-c", command], cwd=PROJECT, env=ENVIRONMENT, stdout=output, stderr=output)
        try:
            yield
            step(name, run=lambda: print_end(process, output, command))
            STEPS[-1] |= {"commands": [command], "seconds": round(time.monotonic() - begin, 1)}
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()


def print_end(process: subprocess.Popen[bytes], output: IO[str], command: str) -> None:
    """Wait for a command that ran meanwhile and print its output; where it has failed, end the demo."""
    status = process.wait()
    output.seek(0)
    print(output.read(), end="")
    if status:
        failed(command, status)


def chapter(title: str) -> None:
    """Print the title of a part of the demo."""
    print(f"\n\033[1m== {title}\033[0m" if sys.stdout.isatty() else f"\n== {title}", flush=True)


def step(name: str, *commands: str, run: Callable[[], object] | None = None) -> None:
    """Print a step with its commands, run them in the project (or `run` instead), and record its duration."""
    begin = time.monotonic()
    so_far = time.strftime("%M:%S", time.gmtime(begin - STARTED))
    place = f"[{' of '.join(map(str, [len(STEPS) + 1, *TOTAL]))}, {so_far}]"
    print(f"\n-- {place} {name}", *(f"$ {command}" for command in commands), sep="\n", flush=True)
    if run is not None:
        run()
    else:
        for command in commands:
            if status := subprocess.run(["bash", "-c", command], cwd=PROJECT, env=ENVIRONMENT).returncode:
                failed(command, status)
    seconds = round(time.monotonic() - begin, 1)
    STEPS.append({"name": name, "seconds": seconds, "commands": list(commands)})
    print(f"   {seconds} s", flush=True)


def failed(command: str, status: int) -> NoReturn:
    """End the demo with the exit status of the command that has failed."""
    print(f"the demo stops here: `{command}` ended with status {status}", file=sys.stderr)
    raise SystemExit(status)


def finish(
    second: dict[str, Any],
    prediction: dict[str, Any],
    rolled_back: dict[str, Any],
    retrained: dict[str, Any],
) -> None:
    """Write demo/deployment.yaml and demo/summary.json, and print the steps and where to look."""
    manifest = DEMO / "deployment.yaml"
    manifest.write_text(second["manifest"], encoding="utf-8")
    summary = {
        "steps": STEPS,
        "seconds": round(time.monotonic() - STARTED, 1),
        "report": str((PROJECT / "reports/report.md").relative_to(TEMPLATE)),
        "manifest": str(manifest.relative_to(TEMPLATE)),
        "release": second["release"],
        "prediction": prediction,
        "model_version": prediction["model_version"],
        "rolled_back_to": rolled_back["model_version"],
        "retrained": retrained,
    }
    path = DEMO / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"\n{'step':40} seconds")
    for entry in STEPS:
        print(f"{entry['name']:40} {entry['seconds']:7.1f}")
    print(f"{'all':40} {summary['seconds']:7.1f}")
    versions = (prediction["model_version"], rolled_back["model_version"], retrained["model"]["version"])
    print("\nreleased {}, rolled back to {}, retrained after a drift and released {}".format(*versions))
    print("report: demo/breast-cancer/reports/report.html, all of it: demo/summary.json")
    print("go on: `cd demo/breast-cancer && make help`")


if __name__ == "__main__":
    import demo  # the one that demo_drift.py imports, with the same STEPS

    demo.main()
