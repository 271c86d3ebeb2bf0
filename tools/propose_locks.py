"""`make propose-locks`: open a pull request with changed locks and images' digests, through GitHub's command `gh`.

One at a time: where it is open, its branch is replaced. Only the standard library is imported, because the job of the
workflow that may push installs nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

BRANCH = "locks"
TITLE = "Locks and digests as `make lock` and `make image-digests` write them"
BODY = """Written where PyTorch's own index and the images' registries can be reached: the hashes of all builds of
torch, and what the tags of the images in k8s/ stand for.

Close and open this pull request once, so that its checks run.
"""
AUTHOR = {"user.name": "github-actions[bot]", "user.email": "41898282+github-actions[bot]@users.noreply.github.com"}


def main() -> None:
    if shutil.which("gh") is None:
        sys.exit("error: gh is not on PATH: install it from https://cli.github.com, then `gh auth login`")
    try:
        print(propose())
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{' '.join(error.cmd[:3])}` failed: {error.stderr.strip()}")


def propose() -> str:
    """Push the changed locks and return their pull request's address. Raises CalledProcessError."""
    git = ["git", *(option for item in AUTHOR.items() for option in ("-c", "=".join(item)))]
    run(*git, "add", "--update", "--", ":(glob)**/requirements/**/*.txt", ":(glob)k8s/**/*.yaml")
    changed = run(*git, "diff", "--cached", "--name-only")
    if not changed:
        return "Locks and digests are as `make lock` and `make image-digests` write them."
    run("gh", "auth", "setup-git")
    run(*git, "switch", "--quiet", "--force-create", BRANCH)
    run(*git, "commit", "--quiet", "--message", TITLE)
    run(*git, "push", "--quiet", "--force", "origin", BRANCH)
    listed = json.loads(run("gh", "pr", "list", f"--head={BRANCH}", "--state=open", "--json=url"))
    if listed:
        return str(listed[0]["url"])
    return run("gh", "pr", "create", "--head", BRANCH, "--title", TITLE, "--body", BODY)


def run(*command: str) -> str:
    """Run the command and return its output. Raises CalledProcessError."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
