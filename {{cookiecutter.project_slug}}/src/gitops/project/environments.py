"""Make the repository's Python environments from their locks, and the locks from what they ask for.

    python3 src/gitops/project/environments.py setup [NAME ...]             what is already right is left alone
    python3 src/gitops/project/environments.py lock [--upgrade] [NAME ...]  versions stay as they are without --upgrade

Each pair requirements/NAME.in and NAME.txt is an environment in .venv/NAME; `kustomize` is a NAME too, a program rather
than an environment. Paths are relative to the repository's root. Only the standard library is imported, because this
runs before anything is installed. uv reads its own settings (UV_DEFAULT_INDEX, UV_CACHE_DIR, ...) from the environment.
"""

from __future__ import annotations

import argparse
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
import urllib.request
from pathlib import Path

REQUIREMENTS = Path("requirements")
VENV = Path(".venv")
PYTHONS = [(3, 11), (3, 12)]

UV = "0.13.9"  # installed where no uv of this minor version or a later one is on PATH

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
    # Not `uv pip sync`: on a machine with a GPU, torch brings CUDA libraries that the lock does not list.
    where = {key: value for key, value in os.environ.items() if key != "UV_TORCH_BACKEND"}  # it would overrule a folder
    install = (uv, "pip", "install", *quiet(), "--python", environment, "--requirement", lock_file)
    run(*install, *torch_source(text), env=where)
    stamp.write_text(wanted)
    print(f"{environment}: ready after {time.monotonic() - started:.0f} s", flush=True)


def fingerprint(environment: Path, lock_text: str) -> str:
    """Return a digest of all that decides what the environment holds and whether its scripts still find it."""
    project = Path("pyproject.toml")
    parts = [lock_text, project.read_text(encoding="utf-8") if project.exists() else "", sys.version]
    return hashlib.sha256("\0".join([*parts, str(environment.absolute())]).encode()).hexdigest()


def torch_source(lock_text: str) -> list[str | Path]:
    """Return uv's options that decide where torch comes from, for a lock that holds it.

    A folder in UV_FIND_LINKS or PIP_FIND_LINKS that has a fitting wheel; else the index of the build that
    UV_TORCH_BACKEND names (cpu, cu130, ...), or of torch's CUDA build for this machine's driver, or its CPU build on a
    machine without a GPU.
    """
    pin = re.search(r"^torch==([\d.]+)", lock_text, re.MULTILINE)
    if pin is None:
        return []
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    system = "macosx" if sys.platform == "darwin" else sys.platform
    wheel = f"torch-{pin[1]}[+-]*{python}-{python}-*{system}*{platform.machine()}.whl"
    folders = f"{os.environ.get('UV_FIND_LINKS', '')} {os.environ.get('PIP_FIND_LINKS', '')}"
    for folder in folders.replace(",", " ").split():
        if any(Path(folder.removeprefix("file://")).glob(wheel)):
            return ["--find-links", folder]
    return ["--torch-backend", os.environ.get("UV_TORCH_BACKEND", "auto")]


def lock(name: str, upgrade: bool) -> None:
    """Write requirements/NAME.txt: every package with its version and hashes, for all platforms and Python versions."""
    source, target = REQUIREMENTS / f"{name}.in", REQUIREMENTS / f"{name}.txt"
    draft = REQUIREMENTS / f".{name}.txt"
    if target.exists() and not upgrade:
        shutil.copy(target, draft)  # uv keeps the versions that it finds in its output file
    # A local wheel folder is this machine's; what it holds must not decide what the lock says.
    environment = {key: value for key, value in os.environ.items() if key not in ("UV_FIND_LINKS", "UV_TORCH_BACKEND")}
    oldest = f"{PYTHONS[0][0]}.{PYTHONS[0][1]}"
    try:
        run(
            *(find_uv(), "pip", "compile", "--quiet", "--universal", "--python-version", oldest, "--generate-hashes"),
            *("--custom-compile-command", "make lock", "--output-file", draft, source),
            env=environment,
        )
        text = without_torch_builds(draft.read_text(encoding="utf-8"))
        draft.write_text(f"{digest_line(name)}\n{text}", encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    print(f"{target}: {len(re.findall('^[a-z0-9]', target.read_text(), re.MULTILINE))} packages", flush=True)


def digest_line(name: str) -> str:
    """Return the lock's first line, which ties it to the requirements that it was made from."""
    digest = hashlib.sha256((REQUIREMENTS / f"{name}.in").read_bytes()).hexdigest()
    return f"# sha256 of requirements/{name}.in: {digest}"


def without_torch_builds(text: str) -> str:
    """Take out of a lock what differs between torch's CPU and CUDA builds: its hashes and the CUDA packages."""
    entries = []
    for entry in re.split(r"\n(?=\S)", text):
        if re.match(r"(nvidia|cuda|triton)\b", entry):
            continue
        if entry.startswith("torch=="):
            lines = [line.removesuffix(" \\") for line in entry.splitlines() if "--hash=" not in line]
            lines.insert(1, "    # no hashes: they differ between the CPU and the CUDA builds")
            entry = re.sub(r"\+\w+", "", "\n".join(lines), count=1)
        entries.append(entry)
    return "\n".join(entries).rstrip("\n") + "\n"


def check_python() -> None:
    if sys.version_info[:2] not in PYTHONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        sys.exit(
            f"error: {sys.executable} is Python {platform.python_version()}, and {wanted} is needed: "
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


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run the command; where it fails, end with its status after what it printed."""
    status = subprocess.run(command, env=env, check=False).returncode
    if status:
        sys.exit(f"error: `{' '.join(map(str, command))}` ended with status {status}; the reason stands above")


if __name__ == "__main__":
    main()
