"""Put what was chosen in its place, remove the rest, and make the first commit. No network, and nothing is installed.

cookiecutter renders this file: ANSWERS is filled in, and no other line may hold two braces in a row.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

#: From the top: what moves where; what moves nowhere is removed.
MOVES = [
    (f"licenses/{ANSWERS['license']}", "LICENSE"),  # there is no text for Proprietary
    ("licenses", None),
    (f"requirements/pipeline/{ANSWERS['__dvc_kind']}.txt", "requirements/pipeline.txt"),
    ("requirements/pipeline", None),
    (f"requirements/serve/{ANSWERS['__dvc_kind']}.txt", "requirements/serve.txt"),
    ("requirements/serve", None),
]
if ANSWERS["feature_store"] == "yes":  # two tables in place of one, with a remote of their own
    MOVES += [("data/raw.csv.dvc", None), ("data/appended.dvc", None), ("dvc-remote", None)]
    MOVES += [(f"feature-store/{name}.csv.dvc", f"data/{name}.csv.dvc") for name in ("raw", "features")]
    MOVES += [("feature-store/dvc-remote", "dvc-remote")]
else:
    MOVES += [(f"requirements/features.{ending}", None) for ending in ("in", "txt")]
    MOVES += [("k8s/components/feature-store", None), ("k8s/redis", None)]
MOVES += [("feature-store", None)]
if ANSWERS["dvc_remote"] != "dvc-remote":  # it is elsewhere, and the bundled table waits in the cache for `dvc push`
    MOVES += [("dvc-remote/files", ".dvc/cache/files"), ("dvc-remote", None)]
if ANSWERS["staging"] == "no":
    MOVES += [("k8s/overlays/staging", None), ("k8s/argocd-staging", None), (".github/workflows/promote.yaml", None)]

#: Generation may run in a hook of another repository: these name that one, as gitops/integrations/git_command.py says.
HOOK_VARIABLES = """
    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_DIR GIT_GRAFT_FILE GIT_IMPLICIT_WORK_TREE GIT_INDEX_FILE
    GIT_INTERNAL_SUPER_PREFIX GIT_NO_REPLACE_OBJECTS GIT_OBJECT_DIRECTORY GIT_PREFIX GIT_REPLACE_REF_BASE
    GIT_SHALLOW_FILE GIT_WORK_TREE
""".split()  # noqa: SIM905

FIRST_COMMIT = [
    ["git", "init", "--quiet", "--initial-branch=main"],
    ["git", "add", "--all"],
    ["git", "commit", "--quiet", "--message=Generate the project"],
]


def place() -> None:
    """Carry out MOVES."""
    for source, target in MOVES:
        if target is None and Path(source).is_dir():
            shutil.rmtree(source)
        elif target is None:
            Path(source).unlink()
        elif Path(source).exists():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(source).rename(target)


def write_sums() -> None:
    """Let src/gitops carry the digests of its files."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, "src")
    from gitops.project import version

    version.write()


def commit() -> None:
    """Make a repository of the project's own, inside another one's work tree too; say what is left where Git cannot."""
    environment = {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
    for number, (git, *arguments) in enumerate(FIRST_COMMIT):
        # Without useConfigOnly Git makes up an identity from the machine's name; what a person ignores everywhere is
        # a part of the project.
        command = [git, "-c", "user.useConfigOnly=true", "-c", "core.excludesFile=/dev/null", *arguments]
        try:
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = (getattr(error, "stderr", "") or str(error)).strip()
            left = "\n".join(f"  {shlex.join(rest)}" for rest in FIRST_COMMIT[number:])
            print(f"{reason}\n\nThe project is complete, but not committed. Once Git is set up, in its folder:\n{left}")
            return


place()
write_sums()
commit()
