"""`make end-to-end`: a generated project on Kubernetes, from the table to the answer of a Service, and back.

It starts a cluster with Argo CD, which follows env/production of demo/origin.git, builds and releases an image twice,
and takes releases back by `git revert` and `make rollback`. After each step the Service must answer with the model that
the manifest names. Needs docker, kind and kubectl, on Linux. If it fails, demo/logs/ has the cluster's logs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import sys
import time

import cluster
import demo
import git_server
import yaml

TIMEOUT = 600  # seconds until a release answers

PROGRAMS = {
    "docker": "https://docs.docker.com/engine/install/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
}

#: Takes the newest commit of env/production back with git alone, beside the project's work tree.
REVERT = (
    "git fetch --quiet origin env/production",
    "git worktree add --quiet --detach ../production FETCH_HEAD",
    "git -C ../production revert --no-edit HEAD",
    "git -C ../production push --quiet origin HEAD:env/production",
    "git worktree remove ../production",
)


def main() -> None:
    """Run it all; the first thing that fails ends it, and its evidence is kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, to look at it")
    keep = parser.parse_args().keep
    check_programs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, on whose way out the cluster is deleted
    demo.ENVIRONMENT["KUBECONFIG"] = str(demo.DEMO / "kubeconfig")  # the user's own is left alone
    demo.origin_and_project()
    try:
        demo.chapter("A cluster")
        cluster.make()
        with git_server.serve(demo.DEMO, cluster.gateway()) as address:
            loop(f"{address}/{demo.ORIGIN.name}")
    except BaseException:
        cluster.keep_evidence()
        raise
    finally:
        if keep:
            print(f"kept: export KUBECONFIG={demo.ENVIRONMENT['KUBECONFIG']}")
        else:
            cluster.delete()


def check_programs() -> None:
    """Exit with the names of missing programs and where to get them."""
    if missing := [f"{name} ({page})" for name, page in PROGRAMS.items() if shutil.which(name) is None]:
        sys.exit(f"error: make end-to-end needs programs that are not on PATH: {', '.join(missing)}")


def loop(origin: str) -> None:
    """Release two models, then roll back, forward and back again."""
    demo.chapter("The default goes to production")
    release("the default")
    demo.step("have Argo CD follow env/production", run=lambda: cluster.follow(origin))
    first = expect("ask the first release")

    demo.chapter("A change goes to production")
    demo.step("merge a change", demo.EDIT, "git commit --quiet -am 'More dropout'")
    release("the change")
    second = expect("ask the second release")
    if first == second:
        raise SystemExit(f"both releases are of model {first}: the change did not change the model")

    demo.chapter("Back")
    for name, commands, wanted in (
        ("git revert takes the release back", REVERT, first),
        ("git revert takes that back", REVERT, second),
        ("make rollback", ("make rollback",), first),
    ):
        demo.step(name, *commands)
        answered = expect(f"ask after: {name}")
        if answered != wanted:
            raise SystemExit(f"after {name!r} model {answered} answers instead of {wanted}")
    print(f"\nreleased {first}, then {second}; {first} is back")


def release(what: str) -> None:
    """Train the working tree's state, push it to main, build its image, and release it."""
    demo.step(f"train {what}", "make pipeline")
    commit = f"git commit --quiet -m 'Train {what}'"
    demo.step("commit its lock", "git add dvc.lock", commit, "git push --quiet origin main")
    demo.step("verify main", "make verify")
    demo.step("run the gate", "make gate")
    version = hashlib.sha256((demo.PROJECT / "model/model.pt2").read_bytes()).hexdigest()[:12]
    image = f"localhost/{cluster.NAME}:{version}"  # no such registry: the image is loaded into the nodes
    demo.step("plan the release", "make plan")
    demo.step("build its image", f"docker build --quiet --file serving/Containerfile --tag {image} .")
    demo.step("give it to the nodes", f"kind load docker-image {image} --name {cluster.CLUSTER}")
    demo.step("release it", f"make deploy IMAGE={image}")


def expect(name: str) -> str:
    """Wait until the cluster runs env/production and its model answers; return that model's version."""
    released = demo.production()
    version = served_version(released["manifest"])
    commit = cluster.output("git", "--git-dir", str(demo.ORIGIN), "rev-parse", "env/production")

    def wait() -> None:
        deadline = time.monotonic() + TIMEOUT
        cluster.wait_for_sync(commit, deadline)
        cluster.wait_for_answer(released["release"]["model"]["name"], version, deadline)

    demo.step(name, run=wait)
    return version


def served_version(manifest: str) -> str:
    """Return the version of the model that a Deployment's manifest names."""
    annotations = yaml.safe_load(manifest)["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["model-sha256"])[:12]


if __name__ == "__main__":
    main()
