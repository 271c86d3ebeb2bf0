"""Single files of a repository's refs, fetched for `make fleet`: the newest commit of each ref, and no other file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

TIMEOUT = 120  # seconds for a call of git
LIMIT = 1 << 20  # bytes of a file

#: Git asks nobody for a password and runs no program that a URL names, and a server that stops sending is given up.
ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=20",
    "GIT_CEILING_DIRECTORIES": "/",
    "LC_ALL": "C.UTF-8",
}
SETTINGS = ("core.hooksPath=/dev/null", "gc.auto=0", "http.lowSpeedLimit=1", "http.lowSpeedTime=30")

#: gh's login is used too, where there is gh: for GitHub alone, and where no helper of the person's knows more.
GH = "credential.https://github.com.helper=!gh auth git-credential"


class Unreadable(Exception):
    """A repository, ref or file cannot be read; the message is one line without a password."""


class Repository:
    """What is fetched of the repository at `url`, in a bare repository in `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def fetch(self, refs: Collection[str]) -> set[str]:
        """Fetch those of the refs that there are, and return them. Raises Unreadable."""
        self.folder.mkdir()
        self._git("init", "--quiet", "--bare", "--template=")
        self._git("config", "remote.origin.url", self.url)
        listed = self._git("ls-remote", "origin", *refs).decode(errors="replace")
        found = {line.partition("\t")[2] for line in listed.splitlines()} & {*refs}
        if found:
            # Files come when they are read, from a server that can leave them out.
            options = ("--quiet", "--depth=1", "--no-tags", "--filter=blob:none")
            self._git("fetch", *options, "origin", *(f"+{ref}:{ref}" for ref in sorted(found)))
        return found

    def time(self, ref: str) -> int:
        """Return when the ref's newest commit was made, in seconds since 1970. Raises Unreadable."""
        text = self._git("log", "-1", "--format=%ct", ref).decode(errors="replace").strip()
        if not text.isdecimal():
            raise Unreadable(f"the newest commit of {ref} has no time")
        return int(text)

    def file(self, ref: str, path: str) -> str:
        """Return a file of the ref's newest commit. Raises Unreadable."""
        name = f"{ref.removeprefix('refs/heads/')} has no {path}"
        if not self._git("ls-tree", ref, path):
            raise Unreadable(name)
        if int(self._git("cat-file", "-s", f"{ref}:{path}")) > LIMIT:
            raise Unreadable(f"{path} has more than {LIMIT} bytes")
        try:
            return self._git("cat-file", "blob", f"{ref}:{path}").decode()
        except UnicodeDecodeError:
            raise Unreadable(f"{path} is not UTF-8") from None

    def _git(self, *arguments: str) -> bytes:
        settings = [option for setting in (*SETTINGS, GH) for option in ("-c", setting)]
        command = ["git", *settings, "-C", str(self.folder), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "GIT_DIR"} | ENVIRONMENT
        pipe = subprocess.PIPE
        # A session of its own has no terminal to ask at, and ends with all that git has started.
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, start_new_session=True) as git:
            try:
                output, errors = git.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(git.pid, signal.SIGKILL)
                raise Unreadable(f"no answer within {TIMEOUT} seconds") from None
        if git.returncode:
            said = " ".join(errors.decode(errors="replace").split()).replace(self.url, "the URL")
            raise Unreadable(f"git {arguments[0]}: {re.sub(r'//[^/@ ]*@', '//', said)}")
        return output
