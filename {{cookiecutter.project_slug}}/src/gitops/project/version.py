"""Does src/gitops hold the files of the template's version, or has somebody patched it? `make test` says so.

    python3 -m gitops.project.version

SHA256SUMS, in the format of `sha256sum`, is written when the project is generated. A patched file is no error; an
update of the template replaces it. Runs in every Python that cookiecutter runs in, and needs no package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gitops import __version__
from gitops.project import command

PACKAGE = Path(__file__).resolve().parents[1]
SUMS = PACKAGE / "SHA256SUMS"

#: Files that the line names.
NAMED = 5


def digests() -> dict[str, str]:
    """Return the SHA-256 of each file of the package, by its path in it; bytecode and hidden files are left out."""
    names = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(names.items())
        if path != SUMS and "__pycache__" not in name and not path.name.startswith(".")
    }


def write() -> None:
    """Write SHA256SUMS. Called once, by the hook that ends the generation of a project."""
    SUMS.write_text("".join(f"{digest}  {name}\n" for name, digest in digests().items()), encoding="utf-8")


def difference() -> str:
    """Return the line about the files that differ from SHA256SUMS, empty where none does."""
    if not SUMS.exists():
        return f"src/gitops has no {SUMS.name}: whether its files are the template's is unknown"
    lines = SUMS.read_text(encoding="utf-8").splitlines()
    generated = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = digests()
    names = [f"{name} (removed)" for name in generated if name not in present]
    names += [f"{name} (added)" for name in present if name not in generated]
    names += [name for name in present if generated.get(name, present[name]) != present[name]]
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"src/gitops differs from version {__version__} of the template: {shown}; an update will replace the package"


def main() -> None:
    """Print the line, if there is one."""
    if line := difference():
        print(line, flush=True)


if __name__ == "__main__":
    command.run(main)
