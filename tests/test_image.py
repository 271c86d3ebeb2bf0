"""The image of a trained project, built by buildah on a base made of this machine's own Debian packages, and run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from images import PACKAGES, Buildah, debian, enter
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
    """Debian with what the Containerfile would otherwise install from the network."""
    return debian(buildah, tmp_path_factory.mktemp("base"), "localhost/base", PACKAGES | {"haproxy", "dumb-init"})


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


def test_image_holds_no_program_but_python_java_and_haproxy(root: Path) -> None:
    programs = [
        path.relative_to(root)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK) and path.stat().st_mode & 0o111
    ]
    assert not [path for path in programs if UNWANTED.fullmatch(path.name)]
    on_path = [path for path in programs if path.parent.name in ("bin", "sbin") and path.parts[0] != "opt"]
    assert on_path
    assert all(re.fullmatch(r"python3?(\.\d+)?|haproxy|dumb-init", path.name) for path in on_path), on_path
    assert not [path for path in programs if (root / path).stat().st_mode & 0o6000]
    assert not list(root.rglob("site-packages/pip")) and not list(root.rglob("ensurepip"))
    assert "Package: libc6\n" in (root / "var/lib/dpkg/status").read_text()  # for scanners


def test_image_answers_and_stops_with_a_read_only_root(
    buildah: Buildah, image: str, root: Path, trained: Path, tmp_path: Path
) -> None:
    """As the cluster runs it: two containers of user 1000, dumb-init process 1, only /tmp and /logs writable."""
    config = buildah.config(image)["config"]
    predictions, metrics, inside, _, inside_metrics, *grpc = ports = free_ports(7)
    settings = (root / "home/model-server/config.properties").read_text()
    for number, port in zip((8085, 8081, 8084), ports[2:], strict=False):
        settings = settings.replace(f":{number}\n", f":{port}\n")
    (tmp_path / "settings").write_text(f"{settings}\ngrpc_inference_port={grpc[0]}\ngrpc_management_port={grpc[1]}\n")
    (tmp_path / "tmp").mkdir(mode=0o777)
    (tmp_path / "tmp").chmod(0o777)
    mounted = {"/home/model-server/config.properties": (tmp_path / "settings", "ro"), "/tmp": (tmp_path / "tmp", "rw")}  # noqa: S108
    pod = yaml.safe_load((trained / "k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    [proxy] = pod["containers"]
    addresses = {
        "PREDICTIONS": predictions,
        "METRICS": metrics,
        "TORCHSERVE": inside,
        "TORCHSERVE_METRICS": inside_metrics,
    }
    commands = [
        enter(root, config, mounts=mounted, tmpfs=("/logs",)),
        enter(
            root,
            config,
            command=proxy["command"],
            environment={name: f"127.0.0.1:{port}" for name, port in addresses.items()},
            mounts={"/tmp": (tmp_path / "tmp", "ro")},  # noqa: S108
        ),
    ]
    with (tmp_path / "log").open("wb") as log, ExitStack() as stack:
        started = []
        for command, port in zip(commands, (inside, predictions), strict=True):
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
            answers(process, root, port, tmp_path / "log")
            [first] = map(int, children(process.pid))
            status = Path(f"/proc/{first}/status").read_text()
            assert "\nName:\tdumb-init\n" in f"\n{status}" and "\nUid:\t1000\t1000\t" in status
            assert re.search(r"\nNSpid:.*\t1\n", status)
        for process in reversed(started):
            [first] = map(int, children(process.pid))
            os.kill(first, signal.SIGTERM)
            assert process.wait(15) == 0, (tmp_path / "log").read_text()[-3000:]


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def answers(process: subprocess.Popen[bytes], root: Path, port: int, log: Path) -> None:
    """Return once the container passes its smoke test at a port."""
    place = root / "home/model-server"
    probe = [sys.executable, str(place / PROBE), f"http://127.0.0.1:{port}", str(place / "model-store")]
    begin = time.monotonic()
    while subprocess.run(probe, capture_output=True).returncode:
        assert process.poll() is None and time.monotonic() - begin < 60, log.read_text()[-3000:]
        time.sleep(0.2)


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
