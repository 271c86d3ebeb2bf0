"""Make the repository's Python environments from their locks, and the locks from what they ask for.

    PYTHONPATH=src python3 -m gitops.project.environments setup [NAME ...]
    PYTHONPATH=src python3 -m gitops.project.environments lock [--upgrade] [NAME ...]

`setup` leaves alone what is already right; `lock` keeps the versions without --upgrade. Each pair requirements/NAME.in
and NAME.txt is an environment in .venv/NAME; `kustomize` is a NAME too, a program rather than an environment. Without a
NAME, `setup` leaves out ON_FIRST_USE. Paths are relative to the repository's root. Only the standard library is
imported, because this runs before anything is installed. uv reads its own settings (UV_DEFAULT_INDEX, UV_CACHE_DIR,
...) from the environment; torch_source.py says which build of torch is installed, and from where.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from gitops.project import command, kustomize_program, locks, torch_source
from gitops.project.locks import REQUIREMENTS
from gitops.project.uv import VENV, check_python, find_uv, quiet, run

#: In the project's path: `:` ends a path for Python and Java, `'` breaks MLflow's SQL, `?` ends a database's address.
UNUSABLE = ":'?"

#: Environments that the one command that needs them makes; whoever never runs it does not install them.
ON_FIRST_USE = ("explore", "debt")

STALE = "requirements/{0}.in has changed since requirements/{0}.txt was made from it: run `make lock`"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("setup", "lock"):
        names = commands.add_parser(name)
        names.add_argument("names", nargs="*", metavar="NAME", help="all where none is named; setup: but ON_FIRST_USE")
    names.add_argument("--upgrade", action="store_true", help="to the newest that requirements/NAME.in allows")
    arguments = parser.parse_args()

    environments = sorted(path.stem for path in REQUIREMENTS.glob("*.in"))
    known = [*environments, "kustomize"] if arguments.command == "setup" else environments
    if unknown := set(arguments.names) - set(known):
        sys.exit(f"error: {', '.join(sorted(unknown))}: there is no such environment, only {', '.join(known)}")
    left_out = ON_FIRST_USE if arguments.command == "setup" else ()
    for name in arguments.names or [name for name in known if name not in left_out]:
        if arguments.command == "lock":
            locks.lock(name, upgrade=arguments.upgrade)
        elif name == "kustomize":
            kustomize_program.set_up()
        else:
            set_up(name)


def set_up(name: str) -> None:
    """Build .venv/NAME anew from its lock, unless its stamp says that it is right.

    The stamp is written last: an environment whose installation was interrupted has none.
    """
    lock_file, environment = REQUIREMENTS / f"{name}.txt", VENV / name
    if not lock_file.exists():
        sys.exit(f"error: {lock_file} is missing: run `make lock`")
    text = lock_file.read_text(encoding="utf-8")
    if locks.digest_line(name) not in text:
        sys.exit(f"error: {STALE.format(name)}")
    stamp, wanted = environment / ".stamp", fingerprint(environment, text)
    if stamp.exists() and stamp.read_text() == wanted and (environment / "bin/python").exists():
        return
    check_python()
    if found := [character for character in UNUSABLE if character in str(environment.absolute())]:
        sys.exit(f"error: the project is in {Path.cwd()}: move it to a path without {' '.join(found)}")
    print(f"{environment}: installing {lock_file}", flush=True)
    started = time.monotonic()
    uv = find_uv()
    run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment)
    install = (uv, "pip", "install", *quiet(), "--python", environment)
    entry = torch_source.TORCH_ENTRY.search(text)
    settings = torch_source.install_torch(install, entry[0], entry[1]) if entry else None
    # Not `uv pip sync`: torch's CUDA build brings libraries that the lock does not list.
    run(*install, "--requirement", lock_file, env=settings)
    if not any(environment.glob("lib/python*/site-packages/*.dist-info")):
        sys.exit(f"error: uv put nothing into {environment}: remove `target` or `prefix` from its settings, uv.toml")
    stamp.write_text(wanted)
    print(f"{environment}: ready after {time.monotonic() - started:.0f} s", flush=True)


def fingerprint(environment: Path, lock_text: str) -> str:
    """Return a digest of all that decides what the environment holds and whether its scripts still find it."""
    project = Path("pyproject.toml")
    parts = [lock_text, project.read_text(encoding="utf-8") if project.exists() else "", sys.version]
    return hashlib.sha256("\0".join([*parts, str(environment.absolute())]).encode()).hexdigest()


if __name__ == "__main__":
    command.run(main)
