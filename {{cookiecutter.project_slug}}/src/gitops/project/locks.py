"""The locks, requirements/NAME.txt: every package that requirements/NAME.in leads to, with its version and hashes."""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from gitops.project.torch_source import BUILDS_COMMENT, TORCH_ENTRY, TORCH_URL
from gitops.project.uv import PYTHONS, environment, find_uv, run, without

REQUIREMENTS = Path("requirements")
TORCH_BUILDS = ("cpu", "cu126", "cu128", "cu129", "cu130", "cu132")  # those that PyTorch has of the locked version


def lock(name: str, upgrade: bool) -> None:
    """Write requirements/NAME.txt: every package with its version and hashes, for all platforms and Python versions."""
    source, target = REQUIREMENTS / f"{name}.in", REQUIREMENTS / f"{name}.txt"
    draft = REQUIREMENTS / f".{name}.txt"
    if target.exists() and not upgrade:
        shutil.copy(target, draft)  # uv keeps the versions that it finds in its output file
    # A local wheel folder is this machine's; what it holds must not decide what the lock says.
    variables = without(environment(), "UV_FIND_LINKS", "UV_TORCH_BACKEND")
    oldest = f"{PYTHONS[0][0]}.{PYTHONS[0][1]}"
    try:
        run(
            *(find_uv(), "pip", "compile", "--quiet", "--universal", "--python-version", oldest, "--generate-hashes"),
            *("--custom-compile-command", "make lock", "--output-file", draft, source),
            env=variables,
        )
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        text = with_torch_builds(draft.read_text(encoding="utf-8"), before)
        draft.write_text(f"{digest_line(name)}\n{text}", encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    print(f"{target}: {len(re.findall('^[a-z0-9]', target.read_text(), re.MULTILINE))} packages", flush=True)


def digest_line(name: str) -> str:
    """Return the lock's first line, which ties it to the requirements that it was made from."""
    digest = hashlib.sha256((REQUIREMENTS / f"{name}.in").read_bytes()).hexdigest()
    return f"# sha256 of requirements/{name}.in: {digest}"


def with_torch_builds(text: str, before: str) -> str:
    """Make a lock right for every build of torch: without CUDA's packages, which one build brings, with all hashes.

    Args:
        text: The lock as uv has written it, with the hashes of the configured index.
        before: The lock that it replaces: where PyTorch's index cannot be reached, its hashes of this version stay.
    """
    entries = re.split(r"\n(?=\S)", text)
    lock = "\n".join(entry for entry in entries if not re.match(r"(nvidia|cuda|triton)\b", entry)).rstrip("\n") + "\n"
    entry = TORCH_ENTRY.search(lock)
    if entry is None:
        return lock
    first, *lines = entry[0].splitlines()
    builds = {re.findall(r"^torch==[\d.]+\+?(\w*)", first)[0] or "pypi"}
    hashes = set(re.findall(r"sha256:\w+", entry[0]))
    if others := torch_hashes(entry[1]):
        builds |= others.keys()
        hashes = hashes.union(*others.values())
    elif (old := TORCH_ENTRY.search(before)) and old[1] == entry[1]:
        builds |= {build for names in re.findall(f"{BUILDS_COMMENT} (.+)", old[0]) for build in names.split(", ")}
        hashes |= set(re.findall(r"sha256:\w+", old[0]))
    first = re.sub(r"^(torch==[\d.]+)\+\w+", r"\1", first.removesuffix(" \\"))
    head = " \\\n    ".join([first, *(f"--hash={digest}" for digest in sorted(hashes))])
    comments = [f"    {BUILDS_COMMENT} {', '.join(sorted(builds))}", *(line for line in lines if "#" in line)]
    return lock.replace(entry[0], "\n".join([head, *comments]))


@functools.cache
def torch_hashes(version: str) -> dict[str, set[str]]:
    """Return the hashes of each of TORCH_BUILDS, as PyTorch's index has them; none at all where it cannot be read."""
    pythons = "|".join(f"cp{major}{minor}" for major, minor in PYTHONS)
    found: dict[str, set[str]] = {}
    reason = f"torch {version} is not in it"
    for build in TORCH_BUILDS:
        try:
            with urllib.request.urlopen(f"{TORCH_URL}/{build}/torch/", timeout=10) as answer:
                page = urllib.parse.unquote(answer.read().decode())
        except OSError as error:
            reason = f"{build}: {error}"
            if isinstance(error, urllib.error.HTTPError) and error.code in (403, 404):
                continue  # how it says that there is no such page
            found = {}
            break
        wheel = rf"/torch-{re.escape(version)}(?:\+{build})?-(?:{pythons})-[^\"#]+\.whl#sha256=([0-9a-f]{{64}})"
        if digests := re.findall(wheel, page):
            found[build] = {f"sha256:{digest}" for digest in digests}
    if not found:
        print(f"torch: {TORCH_URL} gives no hashes ({reason}): the lock keeps those that it has", flush=True)
    return found
