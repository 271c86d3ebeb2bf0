"""The calls of `gh` and `git` that `make github` makes: each is printed before it is made, and none shows a secret."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Output of gh where GitHub does not allow a setting for this repository, and where something does not exist.
REFUSED = re.compile(r"HTTP (403|404|409|422)\b")
MISSING = re.compile(r"HTTP 404\b|Could not resolve to a Repository")

#: What `private_folder` is called in commands that are printed and not run: a variable of the shell.
FOLDER = "$folder"


class Failed(Exception):
    """A call failed; the message holds the call and its output."""


class Refused(Failed):
    """GitHub, or this machine, cannot make a setting; the others are made."""


def is_github_com() -> bool:
    """Return whether gh talks to github.com, and not to a GitHub Enterprise Server."""
    return os.environ.get("GH_HOST", "github.com") == "github.com"


@dataclass
class GitHub:
    """Calls of `gh` and `git`, each printed so that it can be copied. If not `live`, none is made."""

    repository: str
    live: bool
    open: list[str] = field(default_factory=list)  # refused settings, which a person still has to see to
    notes: list[str] = field(default_factory=list)  # what to know; nothing has failed

    @property
    def owner(self) -> str:
        return self.repository.partition("/")[0]

    def run(
        self, *command: str, body: Any = None, file: str | None = None, secrets: Mapping[str, Path | str] | None = None
    ) -> str:
        """Make the call and return its output. Raises Failed.

        Its standard input is `body` as JSON, or the content of `file`; `secrets` are environment variables of the call,
        by the files that hold them.
        """
        print(printed(command, body, file, secrets or {}), flush=True)
        if not self.live:
            return ""
        text = json.dumps(body) if body is not None else Path(file).read_text(encoding="utf-8") if file else None
        environment = os.environ | {"GH_PROMPT_DISABLED": "1"}
        environment |= {name: Path(path).read_text(encoding="utf-8") for name, path in (secrets or {}).items()}
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
        except FileNotFoundError as error:
            raise Refused(f"{command[0]} is not on PATH") from error
        if done.returncode:
            raise Failed(f"`{shlex.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def read(self, *command: str, otherwise: Any) -> Any:
        """Return the JSON output of a call that reads; `otherwise` if the object does not exist or no call is made."""
        if not self.live:
            return otherwise
        try:
            return json.loads(self.run(*command))
        except Failed as error:
            if MISSING.search(str(error)):
                return otherwise
            raise

    def get(self, path: str, otherwise: Any) -> Any:
        return self.read("gh", "api", f"repos/{self.repository}/{path}", otherwise=otherwise)

    def names(self, kind: str, *options: str) -> set[str]:
        """Return the names of the variables or secrets (`kind`) that are set."""
        listed = self.read("gh", kind, "list", "--repo", self.repository, *options, "--json", "name", otherwise=[])
        return {item["name"] for item in listed}

    def send(self, method: str, path: str, body: Any) -> None:
        self.run("gh", "api", "--method", method, f"repos/{self.repository}/{path}", "--input", "-", body=body)

    def delete(self, path: str) -> None:
        self.run("gh", "api", "--method", "DELETE", f"repos/{self.repository}/{path}")

    def attempt(self, title: str, step: Callable[[], bool | None], hint: str) -> bool:
        """Run a step that GitHub may refuse, which `hint` explains, and return whether it is done.

        That is what the step returns, or true where it returns nothing. Raises Failed for any other failure.
        """
        print(f"\n# {title}")
        try:
            return step() is not False
        except Failed as error:
            if not isinstance(error, Refused) and not REFUSED.search(str(error)):
                raise
            self.open.append(f"{title}: {error}\n  {hint}")
            print("# Refused: see below")
            return False

    @contextmanager
    def private_folder(self) -> Iterator[str]:
        """Make a folder that only this user can read, for keys, and remove it afterwards."""
        if not self.live:
            print("folder=$(mktemp -d)")
            yield FOLDER
            print('rm -r "$folder"')
            return
        with tempfile.TemporaryDirectory(prefix="make-github-") as folder:
            print(f"# {folder} is a folder that only you can read; it is removed afterwards")
            yield folder


def printed(command: tuple[str, ...], body: Any, file: str | None, secrets: Mapping[str, Path | str]) -> str:
    """Return the call as a line for a shell, which reads each secret from its file."""
    words = [f'{name}="$(cat {quote(str(path))})"' for name, path in secrets.items()]
    line = " ".join([*words, *map(quote, command)])
    if file:
        line += f" < {quote(file)}"
    if body is not None:
        text = json.dumps(body, indent=2 if len(json.dumps(body)) > 100 else None)
        line += f" <<'JSON'\n{text}\nJSON"
    return line


def quote(word: str) -> str:
    return f'"{word}"' if FOLDER in word else shlex.quote(word)
