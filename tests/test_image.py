"""The image of a trained project, built by buildah on a base made of this machine's own Debian packages, and run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import generate, make
from servers import NAME, free_ports, repacked

pytestmark = [pytest.mark.real, pytest.mark.full]

#: What the base holds beside Debian's essential packages.
PACKAGES = {"ca-certificates", "python3", "python3-venv"}

LABELS = {
    "REVISION": "org.opencontainers.image.revision",
    "MODEL_NAME": "org.opencontainers.image.title",
    "MODEL_VERSION": "org.opencontainers.image.version",
    "MODEL_SHA256": "model.sha256",
    "DATA_MD5": "data.md5",
    "MLFLOW_RUN": "mlflow.run",
}

#: Names of programs that would help an intruder.
UNWANTED = re.compile(
    r"(da|ba|z|k)?sh|busybox|perl.*|apt.*|dpkg.*|pip[\d.]*|uv|gcc.*|cc|c\+\+|ld|make|curl|wget|su|mount"
)

#: Becomes the image's entry point, in a root that is read-only but for what the cluster mounts.
ENTER = """
import json, os, subprocess, sys
root, settings, config = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def mount(*options): subprocess.run(["mount", *options], check=True)
mount("--make-rprivate", "/")
mount("--bind", root, root)
mount("--bind", settings, f"{root}/home/model-server/config.properties")
for folder in ("tmp", "logs"): mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/{folder}")
mount("-t", "proc", "proc", f"{root}/proc")
mount("--bind", "/dev", f"{root}/dev")
mount("-o", "remount,bind,ro", root)
os.chroot(root)
os.chdir(config["WorkingDir"])
user, group = map(int, config["User"].split(":"))
os.setgroups([]); os.setgid(group); os.setuid(user)
environment = dict(value.split("=", 1) for value in config["Env"])
os.execvpe(config["Entrypoint"][0], config["Entrypoint"], environment)
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


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    if os.geteuid() or not all(map(shutil.which, ("buildah", "dpkg-query", "unshare"))):
        pytest.skip("needs root on Debian, with buildah")
    if missing := PACKAGES - installed().keys():
        pytest.skip(f"needs the Debian packages {', '.join(sorted(missing))}")
    folder = tmp_path_factory.mktemp("buildah")
    drivers = [
        driver for driver in ("overlay", "vfs") if works(folder / driver, driver)
    ]  # vfs copies all for each layer
    if not drivers:
        pytest.skip("buildah does not work here")
    yield Buildah(folder / drivers[0], drivers[0])
    for driver in drivers:
        Buildah(folder / driver, driver)("rm", "--all")
        Buildah(folder / driver, driver)("rmi", "--all", "--force")


def works(folder: Path, driver: str) -> bool:
    builder = Buildah(folder, driver)
    try:
        builder("mount", builder("from", "scratch"))
    except AssertionError:
        return False
    return True


def installed() -> dict[str, tuple[bool, str]]:
    """Return this machine's Debian packages: whether it is essential, and what it depends on."""
    form = "${Package}\t${Essential}${Priority}\t${Pre-Depends}, ${Depends}\n"
    lines = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    fields = (line.split("\t") for line in lines.splitlines())
    return {name: ("yes" in kind or "required" in kind, needs) for name, kind, needs in fields}


def base_packages() -> list[str]:
    """Return PACKAGES and the essential ones with all that they need and this machine has."""
    known = installed()
    todo, found = [*PACKAGES, *(name for name, (essential, _) in known.items() if essential)], set[str]()
    while todo:
        if (name := todo.pop()) in known and name not in found:
            found.add(name)
            todo += re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]+)", known[name][1])
    return sorted(found)


@pytest.fixture(scope="module")
def base(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of this machine's Python and the essential packages, where pip finds what it finds here."""
    root = tmp_path_factory.mktemp("base")
    for link in (
        path for path in Path("/").iterdir() if path.is_symlink() and path.name.startswith(("bin", "sbin", "lib"))
    ):
        (root / link.name).symlink_to(os.readlink(link))
        (root / os.readlink(link)).mkdir(parents=True, exist_ok=True)
    packages = base_packages()
    listed = subprocess.run(["dpkg", "-L", *packages], capture_output=True, text=True, check=True).stdout.splitlines()
    files = sorted({path for path in listed if path.startswith("/") and path != "/." and os.path.lexists(path)})
    pack = ["tar", "--create", "--no-recursion", "--files-from=-", "--file=-"]
    archive = subprocess.run(pack, input="\n".join(files).encode(), capture_output=True, check=True).stdout
    unpack = ["tar", "--extract", "--file=-", "--keep-directory-symlink", f"--directory={root}"]
    subprocess.run(unpack, input=archive, check=True)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    status = Path("/var/lib/dpkg/status").read_text().split("\n\n")
    kept = [entry for entry in status if (entry.partition("\n")[0].removeprefix("Package: ")) in packages]
    (root / "var/lib/dpkg/status").write_text("\n\n".join(kept) + "\n\n")
    shutil.copytree("/etc/ssl/certs", root / "etc/ssl/certs", dirs_exist_ok=True)
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
    buildah("commit", "--quiet", "--rm", container, "localhost/base")
    return "localhost/base"


@pytest.fixture(scope="module")
def project(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project after a short training."""
    project = generate(tmp_path_factory.mktemp("image"))
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", "  epochs: 30", settings))
    make(project, "pipeline")
    return project


def build(buildah: Buildah, base: str, project: Path, tag: str, **arguments: str) -> str:
    wheels = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    folders = [folder for folder in wheels.split() if Path(folder).is_dir()]
    given = {"BASE": base} | arguments
    if folders:
        given["TORCH"] = " ".join(f"--find-links {folder}" for folder in folders)
    options = itertools.chain.from_iterable(["--build-arg", f"{key}={value}"] for key, value in given.items())
    mounts = itertools.chain.from_iterable(["--volume", f"{folder}:{folder}:ro"] for folder in folders)
    fixed = ["--isolation", "chroot", "--layers", "--pull-never", "--quiet", "--file", "serving/Containerfile"]
    return buildah("build", *fixed, *options, *mounts, "--tag", tag, ".", cwd=project).splitlines()[-1]


@pytest.fixture(scope="module")
def image(buildah: Buildah, base: str, project: Path) -> str:
    return build(
        buildah, base, project, "localhost/model:1", **{name: f"the {label}" for name, label in LABELS.items()}
    )


@pytest.fixture(scope="module")
def root(buildah: Buildah, image: str) -> Path:
    """The image's files."""
    return Path(buildah("mount", buildah("from", "--pull-never", image)))


def test_image_says_what_is_in_it_and_runs_as_nobody_in_particular(buildah: Buildah, image: str) -> None:
    config = buildah.config(image)["config"]
    assert {label: config["Labels"][label] for label in LABELS.values()} == {
        label: f"the {label}" for label in LABELS.values()
    }
    assert config["User"] == "1000:1000"
    assert config["StopSignal"] == "SIGTERM"


def test_image_holds_no_program_but_python_and_java(root: Path) -> None:
    programs = [
        path.relative_to(root)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK) and path.stat().st_mode & 0o111
    ]
    assert not [path for path in programs if UNWANTED.fullmatch(path.name)]
    on_path = [path for path in programs if path.parent.name in ("bin", "sbin") and path.parts[0] != "opt"]
    assert on_path
    assert all(re.fullmatch(r"python3?(\.\d+)?", path.name) for path in on_path), on_path
    assert not [path for path in programs if (root / path).stat().st_mode & 0o6000]
    assert not list(root.rglob("site-packages/pip")) and not list(root.rglob("ensurepip"))
    assert "Package: libc6\n" in (root / "var/lib/dpkg/status").read_text()  # for scanners


def test_image_answers_and_stops_with_a_read_only_root(
    buildah: Buildah, image: str, root: Path, tmp_path: Path
) -> None:
    """As the cluster runs it: user 1000, its process the first, /tmp and /logs alone writable, settings mounted."""
    config = buildah.config(image)["config"]
    ports = free_ports()
    settings = (root / "home/model-server/config.properties").read_text()
    for number, port in zip((8080, 8081, 8082), ports, strict=False):
        settings = settings.replace(f":{number}\n", f":{port}\n")
    (tmp_path / "settings").write_text(f"{settings}\ngrpc_inference_port={ports[3]}\ngrpc_management_port={ports[4]}\n")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, "-c", ENTER]
    probe = [sys.executable, str(root / "home/model-server/probe.py"), f"http://127.0.0.1:{ports[0]}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(root), str(tmp_path / "settings"), json.dumps(config)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        begin = time.monotonic()
        while subprocess.run([*probe, str(root / "home/model-server/model-store")], capture_output=True).returncode:
            said = (tmp_path / "log").read_text()[-3000:]
            assert process.poll() is None and time.monotonic() - begin < 60, said
            time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        [first] = map(int, children)
        status = Path(f"/proc/{first}/status").read_text()
        assert "\nUid:\t1000\t1000\t" in status and re.search(r"\nNSpid:.*\t1\n", status)
        os.kill(first, signal.SIGTERM)
        assert process.wait(10) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def test_another_model_is_another_last_layer_alone(
    buildah: Buildah, base: str, project: Path, image: str, tmp_path: Path
) -> None:
    archive = project / f"package/{NAME}.mar"
    before = archive.read_bytes()
    repacked(project, tmp_path / "other.mar", handler="raise RuntimeError\n")
    try:
        shutil.copy(tmp_path / "other.mar", archive)
        other = build(buildah, base, project, "localhost/model:2", MODEL_SHA256="another")
    finally:
        archive.write_bytes(before)
    first, second = (buildah.config(name)["rootfs"]["diff_ids"] for name in (image, other))
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]
