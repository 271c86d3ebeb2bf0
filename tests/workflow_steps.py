"""The commands of the small project of workflow_project.py: `workflow_steps.py TARGET` stands for `make TARGET`.

A model depends on settings.txt alone, and a training is a line in the world's log. Each command insists on what it has
to have: the token that it is given, the role that the job has signed in with, what an earlier job has handed on. Names
and outputs are those of the real commands, as the workflows use them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ENV = os.environ
WORLD = Path(ENV.get("WORLD", "world"))  # outside the machine of the job: the log, the bucket, what artifacts hold
MODEL, PLAN, CANDIDATE = Path("model/model"), Path("build/release/plan.json"), Path("build/candidate/candidate.json")


def note(what: str) -> None:
    """Write to the world's log what was done, and by which job."""
    with (WORLD / "log").open("a") as log:
        log.write(f"{ENV.get('GITHUB_JOB', 'laptop')}: {what}\n")


def output(**values: str) -> None:
    with open(ENV["GITHUB_OUTPUT"], "a") as file:
        file.writelines(f"{name.replace('_', '-')}={value}\n" for name, value in values.items())


def git(*arguments: str, given: str = "") -> str:
    done = subprocess.run(["git", *arguments], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def show(revision: str) -> str | None:
    """Return what Git has under a name, if it has it."""
    done = subprocess.run(["git", "show", revision], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def key() -> str:
    """Return the hash of what a training reads."""
    return hashlib.sha256(Path("settings.txt").read_bytes()).hexdigest()[:12]


def bucket(*roles: str) -> Path | None:
    """Return the bucket, for who has signed in as one of the roles, or None: the remote lies in the repository."""
    if Path("remote.txt").read_text() != "bucket":
        return None
    if not ENV.get("CLOUD_ROLE", "nobody").endswith(roles):
        sys.exit(f"{ENV.get('CLOUD_ROLE', 'nobody')} may not do this")
    return WORLD / "bucket"


def call(path: str, **body: object) -> None:
    """Ask GitHub's API for something: to create it where there is a body."""
    import urllib.request  # takes as long as the rest

    address = f"{ENV['GITHUB_API_URL']}/repos/{ENV['GITHUB_REPOSITORY']}{path}"
    headers = {"Authorization": f"Bearer {ENV['GITHUB_TOKEN']}"}
    urllib.request.urlopen(urllib.request.Request(address, json.dumps(body).encode() if body else None, headers))


def lint() -> None:
    if Path("broken.txt").exists():
        sys.exit("broken.txt does not belong here")


def test() -> None:
    note("test")


def model() -> None:
    """Take the model over that was trained from these settings, or train it."""
    place = bucket("main", "branches")  # the table is there too
    found = [place / "branches" / key()] if place else []
    if not place and ENV.get("GITHUB_TOKEN"):
        found = [folder / f"trained-{key()}" for folder in Path(ENV["ARTIFACTS"]).iterdir()]
    shared = [folder for folder in found if folder.exists()]
    if shared and not ENV.get("TRAIN_ON_MAIN"):
        write(MODEL, (shared[0] / "model").read_text())
    else:
        note("train")
        write(MODEL, f"model of {key()}\n")


def share() -> None:
    place = bucket("main", "branches")
    target = place / "branches" / key() if place else Path("build/trained") / key()
    write(target / "model", MODEL.read_text())
    output(trained="" if place else key())


def gate() -> None:
    if not MODEL.exists():
        sys.exit("there is no model")
    if Path("gate.txt").exists():
        sys.exit("refused")
    note("judge")


def replay() -> None:
    """Read the request log, which a bucket gives to the branches' role alone; a broken one ends the step."""
    bucket("branches")
    if Path(ENV["REQUEST_LOG"]).read_text() == "broken":
        sys.exit("the log cannot be read")
    note("replay")


def report() -> None:
    write(Path("reports/report.md"), f"{key()}\n")


def first() -> str:
    return "staging" if Path("staging.txt").exists() else "production"


def plan() -> None:
    released = show(f"origin/env/{first()}:record.json")
    if released and json.loads(released)["key"] == key() and not ENV["REDEPLOY"]:
        output(release="false")
        return
    if place := bucket("main"):
        write(place / "releases" / key(), MODEL.read_text())
    else:
        write(PLAN.parent / "package/model", MODEL.read_text())
    write(PLAN, json.dumps({"key": key(), "commit": git("rev-parse", "HEAD"), "before": released}))
    output(release="true", registry="ghcr.io", image="ghcr.io/owner/name", version=key(), build_args="REVISION=x")


def archive() -> None:
    place = bucket("main")
    source = place / "releases" / key() if place else PLAN.parent / "package/model"
    write(Path("package/model"), source.read_text())


def sign() -> None:
    public = ["sign", "--yes", ENV["IMAGE"]]
    if ENV["PRIVATE"] == "true" and not ENV["COSIGN_PRIVATE_KEY"]:
        print("::warning::the image is not signed")
        return
    with_key = ["sign", "--key", "env://COSIGN_PRIVATE_KEY", ENV["IMAGE"]]
    subprocess.run(["cosign", *(with_key if ENV["PRIVATE"] == "true" else public)], check=True)


def push_record(branch: str, record: str, message: str) -> None:
    """Push one commit to a branch of releases, which holds the record alone."""
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], input=record, capture_output=True, text=True, check=True
    )
    entry = f"100644 blob {blob.stdout.strip()}\trecord.json\n"
    tree = subprocess.run(["git", "mktree"], input=entry, capture_output=True, text=True, check=True).stdout.strip()
    parent = git("ls-remote", "origin", f"refs/heads/{branch}").split()[:1]
    who = ("-c", "user.name=release", "-c", "user.email=release@invalid")
    commit = git(*who, "commit-tree", tree, "-m", message, *(word for sha in parent for word in ("-p", sha)))
    git("push", "origin", f"{commit}:refs/heads/{branch}")
    note(f"push {branch}")


def deploy() -> None:
    planned = json.loads(PLAN.read_text())
    if planned["commit"] != git("rev-parse", "HEAD") or planned["before"] != show(f"origin/env/{first()}:record.json"):
        sys.exit("this is not what was judged: run the whole run again")
    record = {"key": planned["key"], "commit": planned["commit"], "image": ENV["IMAGE"]}
    push_record(f"env/{first()}", json.dumps(record), "Release")


def comment() -> None:
    event = json.loads(Path(ENV["GITHUB_EVENT_PATH"]).read_text())
    pulls = event.get("workflow_run", {}).get("pull_requests") or [event.get("pull_request", {"number": "of the fork"})]
    number = "that was merged" if ENV["GITHUB_JOB"] == "release" else pulls[0]["number"]
    note(f"comment on {number} at {git('rev-parse', '--abbrev-ref', 'HEAD')}")


def promote() -> None:
    print(f"NOW={ENV.get('NOW', '')}")
    call("/deployments?environment=staging")
    push_record("env/production-next", show("origin/env/staging:record.json") or "", "Promote")
    call("/pulls", title="Promote", body="", head="env/production-next", base="env/production")


def rollback() -> None:
    branch = f"env/{ENV['ENVIRONMENT']}"
    push_record(branch, show(f"origin/{branch}^:record.json") or sys.exit("nothing before it"), "Roll back")


def register() -> None:
    if not bucket("main") and PLAN.exists() and not Path("package/model").exists():
        sys.exit("the archive of what was released is nowhere")
    note(f"register as {ENV['MLFLOW_TRACKING_USERNAME']}")


def monitor() -> None:
    """Find what the request log says: ok, drift, or broken, which leaves no report."""
    found = Path(ENV["REQUEST_LOG"]).read_text()
    if found == "broken":
        sys.exit("the log cannot be read")
    write(Path("reports/monitor.json"), json.dumps({"status": found}))
    output(status=found)


def record_monitor() -> None:
    """Record the monitor's result, as the job that may write."""
    found = json.loads(Path("reports/monitor.json").read_text())["status"]
    tree = git("mktree", given=f"100644 blob {git('hash-object', '-w', '--stdin', given=found)}\tmonitor.json\n")
    commit = git("-c", "user.name=bot", "-c", "user.email=bot@invalid", "commit-tree", tree, "-m", "Monitor")
    git("push", "origin", f"{commit}:refs/monitor/last")
    note(f"record {found}")


def retrain() -> None:
    bucket("main")
    if ENV["GITHUB_EVENT_NAME"] == "workflow_run" and not Path("reports/monitor.json").exists():
        sys.exit("the monitor's result is missing")
    settings = Path("settings.txt").read_text() + f"rows: {ENV['REASON']}\n"
    Path("settings.txt").write_text(settings)
    model()
    gate()
    share()
    write(CANDIDATE, json.dumps({"branch": f"retrain/{key()}", "settings": settings}))
    output(propose="true")


def propose_branch(branch: str, title: str) -> None:
    """Push HEAD as a branch, open its pull request, and start CI on it."""
    git("push", "--force", "origin", f"HEAD:refs/heads/{branch}")
    call("/pulls", title=title, body="", head=branch, base="main")
    call("/actions/workflows/ci.yaml/dispatches", ref=branch)
    note(f"propose {branch}")


def commit_all(message: str) -> None:
    git("-c", "user.name=bot", "-c", "user.email=bot@invalid", "commit", "--quiet", "--all", "--message", message)


def propose() -> None:
    candidate = json.loads(CANDIDATE.read_text())
    Path("settings.txt").write_text(candidate["settings"])
    commit_all("Retrain")
    propose_branch(candidate["branch"], "Retrain")


def lock() -> None:
    write(Path("requirements/pipeline.txt"), f"# locked\n{Path('requirements/pipeline.txt').read_text()}")


def propose_locks() -> None:
    shutil.copytree("build/locks", "requirements", dirs_exist_ok=True)
    commit_all("Lock")
    propose_branch(ENV["GITHUB_REF_NAME"].replace("dependabot/", "locks/"), "Locks")


if __name__ == "__main__":
    name = sys.argv[1].replace("-", "_")
    {"pipeline": model, "verify": model}.get(name, globals().get(name, lambda: sys.exit(f"no {name}")))()
