"""Make the repository's Python environments from their locks, and the locks from what they ask for.

    python3 src/gitops/project/environments.py setup [NAME ...]             what is already right is left alone
    python3 src/gitops/project/environments.py lock [--upgrade] [NAME ...]  versions stay as they are without --upgrade

Each pair requirements/NAME.in and NAME.txt is an environment in .venv/NAME; `kustomize` is a NAME too, a program rather
than an environment. Paths are relative to the repository's root. Only the standard library is imported, because this
runs before anything is installed. uv reads its own settings (UV_DEFAULT_INDEX, UV_CACHE_DIR, ...) from the environment.

torch comes from the first of these:

1. a folder in UV_FIND_LINKS or PIP_FIND_LINKS that has a fitting wheel;
2. TORCH_INDEX: the address of an index, or `pypi` for the index that is configured (PyPI, a mirror of it);
3. UV_TORCH_BACKEND: PyTorch's own index for the build that it names, as uv does (cpu, cu130, auto, ...);
4. on Linux PyTorch's own index, for the build that fits this machine's driver, or the CPU build without one;
5. the index that is configured. On Linux x86_64 that is the CUDA build: 4.5 GB installed.

The lock has the hashes of PyPI's build and, once `make lock` has reached PyTorch's own index, of TORCH_BUILDS. Another
build is installed without a check of its hash, and so is a wheel from a folder that has another hash; one line says it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

REQUIREMENTS = Path("requirements")
VENV = Path(".venv")
PYTHONS = [(3, 11), (3, 12)]

UV = "0.13.9"  # installed where no uv of this minor version or a later one is on PATH

TORCH_URL = "https://download.pytorch.org/whl"
TORCH_BUILDS = ("cpu", "cu126", "cu128", "cu129", "cu130", "cu132")  # those that PyTorch has of the locked version
TORCH_PATIENCE = 10  # seconds for PyTorch's index to answer, where no setting asks for it
TORCH_ENTRY = re.compile(r"^torch==([\d.]+).*(?:\n .*)*", re.MULTILINE)  # in a lock
BUILDS_COMMENT = "# hashes of the builds"
TORCH_SETTINGS = ("TORCH_INDEX", "UV_TORCH_BACKEND")

KUSTOMIZE = "5.8.1"
KUSTOMIZE_URL = (
    "https://github.com/kubernetes-sigs/kustomize/releases/download/kustomize%2Fv{0}/kustomize_v{0}_{1}.tar.gz"
)
KUSTOMIZE_SHA256 = {  # from the release's checksums.txt
    "linux_amd64": "029a7f0f4e1932c52a0476cf02a0fd855c0bb85694b82c338fc648dcb53a819d",
    "linux_arm64": "0953ea3e476f66d6ddfcd911d750f5167b9365aa9491b2326398e289fef2c142",
    "darwin_amd64": "ee7cf0c1e3592aa7bb66ba82b359933a95e7f2e0b36e5f53ed0a4535b017f2f8",
    "darwin_arm64": "8886f8a78474e608cc81234f729fda188a9767da23e28925802f00ece2bab288",
}

STALE = "requirements/{0}.in has changed since requirements/{0}.txt was made from it: run `make lock`"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("setup", "lock"):
        names = commands.add_parser(command)
        names.add_argument("names", nargs="*", metavar="NAME", help="all of them where none is named")
    names.add_argument("--upgrade", action="store_true", help="to the newest that requirements/NAME.in allows")
    arguments = parser.parse_args()

    environments = sorted(path.stem for path in REQUIREMENTS.glob("*.in"))
    known = [*environments, "kustomize"] if arguments.command == "setup" else environments
    if unknown := set(arguments.names) - set(known):
        sys.exit(f"error: {', '.join(sorted(unknown))}: there is no such environment, only {', '.join(known)}")
    for name in arguments.names or known:
        if arguments.command == "lock":
            lock(name, upgrade=arguments.upgrade)
        elif name == "kustomize":
            set_up_kustomize()
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
    if digest_line(name) not in text:
        sys.exit(f"error: {STALE.format(name)}")
    stamp, wanted = environment / ".stamp", fingerprint(environment, text)
    if stamp.exists() and stamp.read_text() == wanted and (environment / "bin/python").exists():
        return
    check_python()
    print(f"{environment}: installing {lock_file}", flush=True)
    started = time.monotonic()
    uv = find_uv()
    run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment)
    install = (uv, "pip", "install", *quiet(), "--python", environment)
    entry = TORCH_ENTRY.search(text)
    settings = install_torch(install, entry[0], entry[1]) if entry else None
    # Not `uv pip sync`: torch's CUDA build brings libraries that the lock does not list.
    run(*install, "--requirement", lock_file, env=settings)
    stamp.write_text(wanted)
    print(f"{environment}: ready after {time.monotonic() - started:.0f} s", flush=True)


def fingerprint(environment: Path, lock_text: str) -> str:
    """Return a digest of all that decides what the environment holds and whether its scripts still find it."""
    project = Path("pyproject.toml")
    parts = [lock_text, project.read_text(encoding="utf-8") if project.exists() else "", sys.version]
    return hashlib.sha256("\0".join([*parts, str(environment.absolute())]).encode()).hexdigest()


def install_torch(install: tuple[str | Path, ...], entry: str, version: str) -> dict[str, str]:
    """Install torch alone, and return the environment variables with which uv installs the rest of the lock.

    Alone, because the place that it comes from may have other, older packages too. It is checked against the hashes in
    the lock's entry where those of the build that is found are among them.
    """
    rest = without(os.environ, *TORCH_SETTINGS)
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
    folders = f"{os.environ.get('UV_FIND_LINKS', '')} {os.environ.get('PIP_FIND_LINKS', '')}"
    for folder in folders.replace(",", " ").split():
        if wheels := sorted(Path(folder.removeprefix("file://")).glob(name)):
            return wheels[0]
    return None


@functools.cache
def find_torch(uv: str | Path, version: str) -> tuple[str, dict[str, str]]:
    """Return the version with its build, as 2.13.0+cpu, and the environment variables with which uv finds it.

    Ends with a message where neither the index that a setting names has it nor, without one, the configured index.
    """
    configured, settings = without(os.environ, *TORCH_SETTINGS), torch_settings()
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
    configured = without(os.environ, *TORCH_SETTINGS)
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


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key not in names}


def without_password(address: str) -> str:
    return re.sub("//[^/@]*@", "//***@", address)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(name: str, upgrade: bool) -> None:
    """Write requirements/NAME.txt: every package with its version and hashes, for all platforms and Python versions."""
    source, target = REQUIREMENTS / f"{name}.in", REQUIREMENTS / f"{name}.txt"
    draft = REQUIREMENTS / f".{name}.txt"
    if target.exists() and not upgrade:
        shutil.copy(target, draft)  # uv keeps the versions that it finds in its output file
    # A local wheel folder is this machine's; what it holds must not decide what the lock says.
    environment = without(os.environ, "UV_FIND_LINKS", "UV_TORCH_BACKEND")
    oldest = f"{PYTHONS[0][0]}.{PYTHONS[0][1]}"
    try:
        run(
            *(find_uv(), "pip", "compile", "--quiet", "--universal", "--python-version", oldest, "--generate-hashes"),
            *("--custom-compile-command", "make lock", "--output-file", draft, source),
            env=environment,
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


def check_python() -> None:
    if sys.version_info[:2] not in PYTHONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        newer = f" (Deepchecks needs numpy<2, which has no wheel for {sys.version_info[0]}.{sys.version_info[1]})"
        sys.exit(
            f"error: {sys.executable} is Python {platform.python_version()}, and {wanted} is needed"
            f"{newer if sys.version_info[:2] > PYTHONS[-1] else ''}: "
            f"name one with `make ... PYTHON=python{PYTHONS[-1][0]}.{PYTHONS[-1][1]}`"
        )


def find_uv() -> str | Path:
    """Return a uv that is new enough: from PATH, or a pinned one in .venv/uv, installed where it is missing."""
    own = VENV / "uv" / "bin" / "uv"
    for candidate in (shutil.which("uv"), shutil.which(own)):
        if candidate:
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
            numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
            if numbers >= [int(number) for number in UV.split(".")[:2]]:
                return candidate
    check_python()
    run(sys.executable, "-m", "venv", "--clear", VENV / "uv")
    run(VENV / "uv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={UV}")
    return own


def set_up_kustomize() -> None:
    """Fetch kustomize to .venv/bin, where neither it nor kubectl is on PATH."""
    program = VENV / "bin" / "kustomize"
    if shutil.which("kustomize") or shutil.which("kubectl") or shutil.which(program):
        return
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = f"{platform.system().lower()}_{machine}"
    if system not in KUSTOMIZE_SHA256:
        sys.exit(f"error: kustomize has no pinned release for {system}: install kubectl or kustomize")
    url = KUSTOMIZE_URL.format(KUSTOMIZE, system)
    print(f"{program}: fetching {url}", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            archive = answer.read()
    except OSError as error:
        sys.exit(f"error: {url} cannot be fetched ({error}): install kubectl or kustomize, or try again")
    found = hashlib.sha256(archive).hexdigest()
    if found != KUSTOMIZE_SHA256[system]:
        sys.exit(f"error: {url} has sha256 {found}, not {KUSTOMIZE_SHA256[system]} as released: it is not installed")
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        content = members.extractfile("kustomize")
        if content is None:
            sys.exit(f"error: {url} holds no file named kustomize")
        program.parent.mkdir(parents=True, exist_ok=True)
        draft = program.with_name(".kustomize")
        draft.write_bytes(content.read())
    draft.chmod(0o755)
    draft.replace(program)


def quiet() -> list[str]:
    """Return uv's option for no progress bars, which belong on a terminal only."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def run(*command: str | Path, env: Mapping[str, str] | None = None, text: str | None = None) -> None:
    """Run the command, with `text` as its input; where it fails, end with its status after what it printed."""
    status = subprocess.run(command, env=env, input=text, text=True, check=False).returncode
    if status:
        sys.exit(f"error: `{' '.join(map(str, command))}` ended with status {status}; the reason stands above")


if __name__ == "__main__":
    main()
