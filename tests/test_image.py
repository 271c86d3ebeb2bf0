"""The image of a trained project, built by buildah on a base made of this machine's own Debian packages, and run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from images import Buildah, debian, enter
from servers import NAME, PROBE, free_ports, repacked

pytestmark = [pytest.mark.real, pytest.mark.full, pytest.mark.root]

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


@pytest.fixture(scope="module")
def base(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    return debian(buildah, tmp_path_factory.mktemp("base"), "localhost/base")


def build(buildah: Buildah, base: str, project: Path, tag: str, **arguments: str) -> str:
    given = {"BASE": base} | arguments
    return buildah.build(project, "serving/Containerfile", tag, **given)


@pytest.fixture(scope="module")
def image(buildah: Buildah, base: str, trained: Path) -> str:
    return build(
        buildah, base, trained, "localhost/model:1", **{name: f"the {label}" for name, label in LABELS.items()}
    )


@pytest.fixture(scope="module")
def root(buildah: Buildah, image: str) -> Path:
    """The image's files."""
    return buildah.files(image)


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
    ports = free_ports(5)
    settings = (root / "home/model-server/config.properties").read_text()
    for number, port in zip((8080, 8081, 8082), ports, strict=False):
        settings = settings.replace(f":{number}\n", f":{port}\n")
    (tmp_path / "settings").write_text(f"{settings}\ngrpc_inference_port={ports[3]}\ngrpc_management_port={ports[4]}\n")
    mounted = {"/home/model-server/config.properties": (tmp_path / "settings", "ro")}
    command = enter(root, config, mounts=mounted, tmpfs=("/tmp", "/logs"))  # noqa: S108
    probe = [sys.executable, str(root / "home/model-server" / PROBE), f"http://127.0.0.1:{ports[0]}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
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
    buildah: Buildah, base: str, trained: Path, image: str, tmp_path: Path
) -> None:
    archive = trained / f"package/{NAME}.mar"
    before = archive.read_bytes()
    repacked(trained, tmp_path / "other.mar", handler="raise RuntimeError\n")
    try:
        shutil.copy(tmp_path / "other.mar", archive)
        other = build(buildah, base, trained, "localhost/model:2", MODEL_SHA256="another")
    finally:
        archive.write_bytes(before)
    first, second = (buildah.config(name)["rootfs"]["diff_ids"] for name in (image, other))
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]
