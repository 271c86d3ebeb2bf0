"""Where torch comes from, and its installation.

The first of these has it:

1. a folder in UV_FIND_LINKS or PIP_FIND_LINKS that has a fitting wheel;
2. TORCH_INDEX: the address of an index, or `pypi` for the index that is configured (PyPI, a mirror of it);
3. UV_TORCH_BACKEND: PyTorch's own index for the build that it names, as uv does (cpu, cu130, auto, ...);
4. on Linux PyTorch's own index, for the build that fits this machine's driver, or the CPU build without one;
5. the index that is configured. On Linux x86_64 that is the CUDA build: 4.5 GB installed.

The lock has the hashes of PyPI's build and, once `make lock` has reached PyTorch's own index, of locks.TORCH_BUILDS.
Another build is installed without a check of its hash, and so is a wheel from a folder that has another hash; one line
says it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

from gitops.project.uv import environment, run, without

TORCH_URL = "https://download.pytorch.org/whl"
TORCH_PATIENCE = 10  # seconds for PyTorch's index to answer, where no setting asks for it
TORCH_ENTRY = re.compile(r"^torch==([\d.]+).*(?:\n .*)*", re.MULTILINE)  # in a lock
BUILDS_COMMENT = "# hashes of the builds"
TORCH_SETTINGS = ("TORCH_INDEX", "UV_TORCH_BACKEND")


def install_torch(install: tuple[str | Path, ...], entry: str, version: str) -> dict[str, str]:
    """Install torch alone, and return the environment variables with which uv installs the rest of the lock.

    Alone, because the place that it comes from may have other, older packages too. It is checked against the hashes in
    the lock's entry where those of the build that is found are among them.
    """
    rest = without(environment(), *TORCH_SETTINGS)
    hashes = re.findall(r"--hash=(\S+)", entry)
    if wheel := local_wheel(version):
        if f"sha256:{file_sha256(wheel)}" not in hashes:
            print(f"torch: {wheel} has none of the lock's hashes, and is taken as the folder has it", flush=True)
        pin = f"torch=={wheel.name.split('-')[1]}"
        run(*install, "--no-deps", "--no-index", pin, env=rest | {"UV_FIND_LINKS": str(wheel.parent)})
        return rest
    found, settings = find_torch(install[0], version)
    build = found.partition("+")[2] or ("cpu" if "UV_TORCH_BACKEND" in settings else "pypi")
    listed = re.search(f"{BUILDS_COMMENT} (.+)", entry)
    if listed is None or build not in listed[1].split(", "):
        print(f"torch: {found} is installed unchecked, as the lock has no hashes of the build {build}", flush=True)
        hashes = []
    requirement = " ".join([f"torch=={found}", *(f"--hash={digest}" for digest in hashes)])
    run(*install, "--no-deps", "--requirement", "-", env=settings, text=requirement)
    # A backend of uv's has packages besides that are nowhere else, such as ROCm's triton.
    return settings if "UV_TORCH_BACKEND" in settings else rest


def local_wheel(version: str) -> Path | None:
    """Return torch's wheel for this Python and machine from a folder in UV_FIND_LINKS or PIP_FIND_LINKS."""
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    system = "macosx" if sys.platform == "darwin" else sys.platform
    name = f"torch-{version}[+-]*{python}-{python}-*{system}*{platform.machine()}.whl"
    folders = [*os.environ.get("UV_FIND_LINKS", "").split(","), *os.environ.get("PIP_FIND_LINKS", "").split()]
    for folder in filter(None, map(str.strip, folders)):
        place = unquote(folder.removeprefix("file://")) if folder.startswith("file://") else folder
        if wheels := sorted(Path(place).glob(name)):
            return wheels[0]
    return None


@functools.cache
def find_torch(uv: str | Path, version: str) -> tuple[str, dict[str, str]]:
    """Return the version with its build, as 2.13.0+cpu, and the environment variables with which uv finds it.

    Ends with a message where neither the index that a setting names has it nor, without one, the configured index.
    """
    configured, settings = without(environment(), *TORCH_SETTINGS), torch_settings()
    chosen = " and ".join(f"{name}={os.environ[name]}" for name in TORCH_SETTINGS if os.environ.get(name))
    found, reason = resolve_torch(uv, version, settings, patient=bool(chosen))
    if not (found or chosen) and settings != configured:
        print(
            f"torch: {TORCH_URL} does not give it: it comes from the configured index, on Linux x86_64 the CUDA build "
            "(4.5 GB installed); TORCH_INDEX or UV_TORCH_BACKEND chooses another",
            flush=True,
        )
        settings = configured
        found, reason = resolve_torch(uv, version, settings, patient=True)
    if not found:
        place = without_password(chosen) or "the configured index"
        sys.exit(
            f"{reason}\nerror: torch {version} is not found by {place}: TORCH_INDEX or UV_TORCH_BACKEND names another"
        )
    return found, settings


def torch_settings() -> dict[str, str]:
    """Return the environment variables with which uv asks the index that a setting names, or PyTorch's own."""
    configured = without(environment(), *TORCH_SETTINGS)
    index, backend = (os.environ.get(name, "") for name in TORCH_SETTINGS)
    if index == "pypi":
        return configured
    if index:
        if not re.match(r"(https?|file)://", index):
            sys.exit(f"error: TORCH_INDEX is {index!r}: the address of an index, https://..., or `pypi` would be right")
        return without(configured, "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX_URL") | {"UV_DEFAULT_INDEX": index}
    if backend or sys.platform == "linux":  # elsewhere the configured index has the same build
        return configured | {"UV_TORCH_BACKEND": backend or "auto"}
    return configured


def resolve_torch(uv: str | Path, version: str, settings: dict[str, str], patient: bool) -> tuple[str, str]:
    """Return the version with its build that uv finds, or "" and uv's reason. Impatient, it gives up after seconds."""
    seconds = str(TORCH_PATIENCE)
    hasty = {"UV_HTTP_TIMEOUT": seconds, "UV_HTTP_CONNECT_TIMEOUT": seconds, "UV_HTTP_RETRIES": "0"}
    options = ("--quiet", "--no-deps", "--no-header", "--no-annotate", "--python", sys.executable)
    done = subprocess.run(
        [uv, "pip", "compile", *options, "-"],
        input=f"torch=={version}\n",
        env=settings if patient else settings | hasty,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^torch==(\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else "", done.stderr.strip()


def without_password(address: str) -> str:
    return re.sub("//[^/@]*@", "//***@", address)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
