"""`make end-to-end`: a generated project on Kubernetes, from the table to the answer of a Service, and back.

It starts a cluster with Argo CD, which follows env/production of demo/origin.git, builds and releases an image twice,
and takes releases back by `git revert` and `make rollback`. After each step the Service must answer with the model that
the manifest names. Then a release that cannot start, which must be taken back without a wait while the model before
answers; and the platform's fleet, where a second repository gets its namespace and then tries to break out of it.

Needs docker, kind and kubectl, on Linux. If it fails, demo/logs/ has the cluster's logs.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys

import cluster
import cluster_argo_cd
import demo
import end_to_end_broken
import end_to_end_fleet
import git_server
from end_to_end_release import expect, release

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
            cluster.let_argo_cd_reach(address)
            first = loop(f"{address}/{demo.ORIGIN.name}")
            demo.chapter("A release that cannot start, and back")
            end_to_end_broken.broken_and_back(first)
            expect("ask after the rollback")
            demo.chapter("A second repository on the platform")
            end_to_end_fleet.second_repository(address)
            demo.chapter("It tries to break out of its namespace")
            end_to_end_fleet.attacked()
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


def loop(origin: str) -> str:
    """Release two models, then roll back, forward and back again; return the version that answers then, the first."""
    demo.chapter("The default goes to production")
    release("the default")
    demo.step("have Argo CD follow env/production", run=lambda: cluster_argo_cd.follow(origin))
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
    return first


if __name__ == "__main__":
    main()
