"""Builds images by buildah on a base made of this machine's own Debian packages, and runs them as a cluster would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: What a base holds beside Debian's essential packages, if nothing else is asked for.
PACKAGES = frozenset({"ca-certificates", "python3", "python3-venv"})

#: Becomes the command of a container: in a root that is read-only but for what is mounted, as the user that is named,
#: and the first process of a namespace. A runtime makes the folders that are mounted on.
ENTER = """
import json, os, subprocess, sys
root, container = sys.argv[1], json.loads(sys.argv[2])
def mount(*options): subprocess.run(["mount", *options], check=True)
mount("--make-rprivate", "/")
mount("--bind", root, root)
for place in container["tmpfs"]: mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root + place)
for place, (source, access) in container["mounts"].items():
    if os.path.isdir(source): os.makedirs(root + place, exist_ok=True)
    mount("--bind", source, root + place)
    if access == "ro": mount("-o", "remount,bind,ro", root + place)
mount("-t", "proc", "proc", f"{root}/proc")
mount("--bind", "/dev", f"{root}/dev")
mount("-o", "remount,bind,ro", root)
os.chroot(root)
os.chdir(container["folder"])
user, group = map(int, container["user"].split(":"))
os.setgroups([]); os.setgid(group); os.setuid(user)
os.environ.clear(); os.environ.update(container["environment"])
os.execvp(container["command"][0], container["command"])
"""


class Buildah:
    """buildah with a storage of its own. Raises AssertionError with its output where it fails."""

    def __init__(self, folder: Path, driver: str) -> None:
        self.storage = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", driver]

    def __call__(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(["buildah", *self.storage, *arguments], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, f"buildah {' '.join(arguments)}\n{done.stdout[-5000:]}{done.stderr[-5000:]}"
        return done.stdout.strip()

    def config(self, image: str) -> dict[str, Any]:
        """Return an image's configuration, as the OCI has it."""
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["OCIv1"]
        return found

    def files(self, image: str) -> Path:
        """Return a folder with a container's files, fresh from the image."""
        return Path(self("mount", self("from", "--pull-never", image)))

    def build(self, project: Path, containerfile: str, tag: str, **arguments: str) -> str:
        """Build an image of the project with build arguments, and return its id. Wheel folders are there, as here."""
        options = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
        mounts = [option for folder in wheel_folders() for option in ("--volume", f"{folder}:{folder}:ro")]
        fixed = ["--isolation", "chroot", "--layers", "--pull-never", "--quiet", "--file", containerfile]
        return self("build", *fixed, *options, *mounts, "--tag", tag, ".", cwd=project).splitlines()[-1]


def available(folder: Path) -> tuple[Buildah, list[str]]:
    """Return buildah and the storage drivers that work here; skip where it cannot build a base."""
    if os.geteuid() or not all(map(shutil.which, ("buildah", "dpkg-query", "unshare"))):
        pytest.skip("needs root on Debian, with buildah")
    # vfs copies all for each layer.
    drivers = [driver for driver in ("overlay", "vfs") if _works(folder / driver, driver)]
    if not drivers:
        pytest.skip("buildah does not work here")
    return Buildah(folder / drivers[0], drivers[0]), drivers


def _works(folder: Path, driver: str) -> bool:
    builder = Buildah(folder, driver)
    try:
        builder("mount", builder("from", "scratch"))
    except AssertionError:
        return False
    return True


def wheel_folders() -> list[str]:
    """Return the local folders that pip and uv take wheels from here."""
    wheels = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    return [folder for folder in wheels.split() if Path(folder).is_dir()]


def enter(
    root: Path,
    config: dict[str, Any],
    *arguments: str,
    environment: dict[str, str] | None = None,
    mounts: dict[str, tuple[Path, str]] | None = None,
    tmpfs: tuple[str, ...] = (),
    command: list[str] | None = None,
) -> list[str]:
    """Return the command that runs a container of the image with `config`, whose files are in `root`.

    `mounts`: place to folder or file and "ro" or "rw"; `tmpfs`: places that are writable and empty. As in a pod,
    `command` replaces the image's entry point, `arguments` come after it, and the user's home is that of its passwd.
    """
    passwd = (line.split(":") for line in (root / "etc/passwd").read_text().splitlines())
    user = config["User"]
    homes = {fields[2]: fields[5] for fields in passwd}
    ours = dict(value.split("=", 1) for value in config["Env"]) | (environment or {})
    container = {
        "command": [*(command or config["Entrypoint"]), *arguments],
        "environment": {"HOME": homes[user.partition(":")[0]]} | ours,
        "folder": config["WorkingDir"],
        "mounts": {place: [str(source), access] for place, (source, access) in (mounts or {}).items()},
        "tmpfs": tmpfs,
        "user": user,
    }
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*isolated, sys.executable, "-c", ENTER, str(root), json.dumps(container)]


def _installed() -> dict[str, tuple[bool, str]]:
    """Return this machine's Debian packages: whether it is essential, and what it depends on."""
    form = "${Package}\t${Essential}${Priority}\t${Pre-Depends}, ${Depends}\n"
    lines = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    fields = (line.split("\t") for line in lines.splitlines())
    return {name: ("yes" in kind or "required" in kind, needs) for name, kind, needs in fields}


def _closure(packages: frozenset[str]) -> list[str]:
    """Return the packages and the essential ones with all that they need and this machine has."""
    known = _installed()
    if missing := packages - known.keys():
        pytest.skip(f"needs the Debian packages {', '.join(sorted(missing))}")
    todo, found = [*packages, *(name for name, (essential, _) in known.items() if essential)], set[str]()
    while todo:
        if (name := todo.pop()) in known and name not in found:
            found.add(name)
            todo += re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]+)", known[name][1])
    return sorted(found)


def debian(buildah: Buildah, root: Path, tag: str, packages: frozenset[str] = PACKAGES) -> str:
    """Make an image of these and the essential packages of this machine, where pip finds what it finds here.

    Its files are gathered in the empty folder `root`. Skips where one of the packages is not installed.
    """
    for link in (
        path for path in Path("/").iterdir() if path.is_symlink() and path.name.startswith(("bin", "sbin", "lib"))
    ):
        (root / link.name).symlink_to(os.readlink(link))
        (root / os.readlink(link)).mkdir(parents=True, exist_ok=True)
    names = _closure(packages)
    listed = subprocess.run(["dpkg", "-L", *names], capture_output=True, text=True, check=True).stdout.splitlines()
    files = sorted({path for path in listed if path.startswith("/") and path != "/." and os.path.lexists(path)})
    pack = ["tar", "--create", "--no-recursion", "--files-from=-", "--file=-"]
    archive = subprocess.run(pack, input="\n".join(files).encode(), capture_output=True, check=True).stdout
    unpack = ["tar", "--extract", "--file=-", "--keep-directory-symlink", f"--directory={root}"]
    subprocess.run(unpack, input=archive, check=True)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    status = Path("/var/lib/dpkg/status").read_text().split("\n\n")
    kept = [entry for entry in status if (entry.partition("\n")[0].removeprefix("Package: ")) in names]
    (root / "var/lib/dpkg/status").write_text("\n\n".join(kept) + "\n\n")
    certificates = root / "etc/ssl/certs"
    shutil.copytree("/etc/ssl/certs", certificates, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    for settings in filter(os.path.exists, ("/etc/pip.conf", "/etc/xdg/pip", os.path.expanduser("~/.config/pip"))):
        target = (
            root / settings.lstrip("/")
            if not settings.startswith(os.path.expanduser("~"))
            else root / "root/.config/pip"
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--recursive", settings, target], check=True)
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, str(root), "/")
    here = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_CERT_"))}
    for name, value in ({"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"} | here).items():
        buildah("config", "--env", f"{name}={value}", container)
    buildah("commit", "--quiet", "--rm", container, tag)
    return tag
