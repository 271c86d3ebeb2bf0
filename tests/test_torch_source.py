"""Where torch comes from (gitops.project.torch_source), and what is checked: with uv, and indexes of one build each."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from projects import ROOT
from torch_indexes import PyTorch, World, wheel

FALLBACK = "does not give it: it comes from the configured index"
UNCHECKED = "is installed unchecked"


@pytest.fixture
def world(environments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """On Linux, behind a proxy that lets nothing out, so that PyTorch's own index is out of reach; PyPI is `pypi`."""
    monkeypatch.chdir(ROOT)
    uv = Path(environments.find_uv()).absolute()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environments, "find_uv", lambda: uv)
    monkeypatch.setattr(sys, "platform", "linux")
    world = World(environments, tmp_path)
    for name in ("TORCH_INDEX", "PIP_FIND_LINKS", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": world.address("pypi"),
        "UV_NO_CONFIG": "1",
    }.items():
        monkeypatch.setenv(name, value)
    threading.Thread(target=world.server.serve_forever, daemon=True).start()
    yield world
    world.server.shutdown()
    world.server.server_close()


@pytest.fixture
def pytorch(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[PyTorch]]:
    """PyTorch's own index within reach: `whl/BUILD` of the world. The machine's driver is one for CUDA 13."""
    key, certificate = world.folder / "key.pem", world.folder / "certificate.pem"
    names = ("-subj", "/CN=test", "-addext", "subjectAltName=DNS:download.pytorch.org")
    use = ("-newkey", "rsa:2048", "-nodes", "-addext", "basicConstraints=critical,CA:FALSE")
    command: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-days",
        "2",
        *names,
        *use,
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run(command, check=True, capture_output=True)
    PyTorch.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    PyTorch.context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(PyTorch, directory=str(world.folder / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("UV_CUDA_DRIVER_VERSION", "580.65.06")
    yield PyTorch
    server.shutdown()
    server.server_close()


def test_pytorchs_own_index_comes_before_the_configured_one(
    world: World, pytorch: type[PyTorch], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its build for this machine, or the one that UV_TORCH_BACKEND names, is checked; what it refuses is not there."""
    digests = {build: world.add(f"whl/{build}", "torch", f"2.13.0+{build}") for build in ("cpu", "cu130")}
    world.lock("cpu, pypi", digests["cpu"], world.add("pypi", "torch", "2.13.0"))
    assert world.set_up() == "2.13.0+cu130"
    assert UNCHECKED in capfd.readouterr().out
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    assert world.set_up() == "2.13.0+cpu"
    assert "torch: " not in capfd.readouterr().out
    monkeypatch.delenv("UV_TORCH_BACKEND")
    world.lock("cpu, cu130, pypi", *digests.values())
    assert world.set_up() == "2.13.0+cu130"
    assert "torch: " not in capfd.readouterr().out
    world.lock("cpu, cu130, pypi", digests["cpu"])
    with pytest.raises(SystemExit, match="ended with status"):
        world.set_up()
    assert "Hash mismatch for `torch==2.13.0+cu130`" in capfd.readouterr().err
    monkeypatch.setattr(pytorch, "refuses", True)
    monkeypatch.setenv("UV_CACHE_DIR", str(world.folder / "another"))
    world.lock("pypi", world.add("pypi", "torch", "2.13.0"))
    assert world.set_up() == "2.13.0"
    assert FALLBACK in capfd.readouterr().out


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cpu"])
def test_configured_index_where_pytorchs_is_out_of_reach(
    version: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever build it has; one line says what that costs and which settings choose."""
    world.lock("cpu, pypi", "0" * 64, world.add("pypi", "torch", version))
    assert world.set_up() == version
    assert world.installed().keys() == {"torch", "other"}
    [line] = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(".venv/tiny: ")]
    assert FALLBACK in line
    assert "4.5 GB" in line and "TORCH_INDEX or UV_TORCH_BACKEND" in line


def test_an_index_that_never_answers_takes_seconds(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.lock("pypi", world.add("pypi", "torch", "2.13.0"))
    monkeypatch.setattr(world.environments.torch_source, "TORCH_PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        assert world.set_up() == "2.13.0"
    assert time.monotonic() - begin < 20
    assert FALLBACK in capsys.readouterr().out


def test_a_setting_chooses_the_index(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An index of the company's, which may lack everything but torch; or the one that is configured."""
    builds = {"pypi": "2.13.0", "company": "2.13.0+cu130"}
    world.lock("cu130, pypi", *(world.add(index, "torch", version) for index, version in builds.items()))
    monkeypatch.setenv("TORCH_INDEX", world.address("company"))
    monkeypatch.setenv("UV_INDEX", world.address("pypi"))
    assert world.set_up() == "2.13.0+cu130"
    monkeypatch.setenv("TORCH_INDEX", "pypi")
    assert world.set_up() == "2.13.0"
    assert "torch: " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TORCH_INDEX", "http://me:secret@127.0.0.1:9/simple", r"TORCH_INDEX=http://\*\*\*@127\.0\.0\.1:9/simple"),
        ("TORCH_INDEX", "company", r"TORCH_INDEX is 'company': the address of an index"),
        ("UV_TORCH_BACKEND", "cpu", "UV_TORCH_BACKEND=cpu"),
        ("UV_TORCH_BACKEND", "cuda", "UV_TORCH_BACKEND=cuda"),
    ],
)
def test_a_setting_that_finds_nothing_is_an_error(
    name: str, value: str, said: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is taken in place of what somebody has asked for."""
    world.lock("pypi", world.add("pypi", "torch", "2.13.0"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=said) as error:
        world.set_up()
    assert "secret" not in str(error.value)
    assert "torch" not in world.installed()


def test_no_index_has_it(world: World) -> None:
    world.lock("pypi", "0" * 64)
    with pytest.raises(SystemExit, match=r"torch 2\.13\.0 is not found by the configured index"):
        world.set_up()


def test_another_hash_is_refused(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.lock("pypi", "0" * 64)
    world.add("pypi", "torch", "2.13.0")
    with pytest.raises(SystemExit, match="ended with status"):
        world.set_up()
    assert "Hash mismatch for `torch==2.13.0`" in capfd.readouterr().err
    assert "torch" not in world.installed()


@pytest.mark.parametrize("builds", ["cpu, pypi", ""])
def test_a_build_without_hashes_is_installed_unchecked(
    builds: str, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.lock(builds, *["0" * 64] * bool(builds))
    world.add("pypi", "torch", "2.13.0+company")
    monkeypatch.setenv("TORCH_INDEX", "pypi")
    assert world.set_up() == "2.13.0+company"
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("torch: ")]
    assert UNCHECKED in line and "the build company" in line


def test_a_folder_comes_first(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it has a wheel for this version, Python and machine; no index is asked for torch then."""
    world.lock("pypi", "0" * 64)
    folder = world.folder / "wheels"
    folder.mkdir()
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    fitting = f"{python}-{python}-manylinux_2_17_{platform.machine()}"
    monkeypatch.setenv("PIP_FIND_LINKS", f"https://wheels.example {folder}")
    for version, tag in (
        ("2.13.1", fitting),
        ("2.13.0", fitting.replace(python, "cp39")),
        ("2.13.0", fitting.replace(platform.machine(), "s390x")),
    ):
        wheel(folder, "torch", version, tag)
    assert world.environments.torch_source.local_wheel("2.13.0") is None
    path = wheel(folder, "torch", "2.13.0+cpu", fitting)
    monkeypatch.setenv("TORCH_INDEX", world.address("nothing"))
    assert world.set_up() == "2.13.0+cpu"
    assert f"{path} has none of the lock's hashes" in capsys.readouterr().out
    world.lock("cpu", hashlib.sha256(path.read_bytes()).hexdigest())
    assert world.set_up() == "2.13.0+cpu"
    assert "torch: " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("system", "settings", "backend", "index"),
    [
        ("linux", {}, "auto", "configured"),
        ("darwin", {}, None, "configured"),  # PyPI has the same build
        ("darwin", {"UV_TORCH_BACKEND": "cpu"}, "cpu", "configured"),
        ("linux", {"UV_TORCH_BACKEND": "cu130"}, "cu130", "configured"),
        ("linux", {"UV_TORCH_BACKEND": "cu130", "TORCH_INDEX": "pypi"}, None, "configured"),
        ("linux", {"UV_TORCH_BACKEND": "cu130", "TORCH_INDEX": "https://company"}, None, "https://company"),
    ],
)
def test_what_uv_is_told(
    system: str,
    settings: dict[str, str],
    backend: str | None,
    index: str,
    environments: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    for name in environments.torch_source.TORCH_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in (settings | {"UV_DEFAULT_INDEX": "configured"}).items():
        monkeypatch.setenv(name, value)
    told = environments.torch_source.torch_settings()
    assert told.get("UV_TORCH_BACKEND") == backend
    assert told["UV_DEFAULT_INDEX"] == index
    assert "TORCH_INDEX" not in told


def test_hashes_of_pytorchs_own_index(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of this version, for the Pythons that are supported; a build that it does not have is none."""
    monkeypatch.setattr(world.environments.locks, "TORCH_URL", world.address("whl"))
    page = world.folder / "www/whl/cpu/torch/index.html"
    page.parent.mkdir(parents=True)
    names = {
        "torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl": True,
        "torch-2.13.0-cp312-none-macosx_14_0_arm64.whl": True,
        "torch-2.13.0%2Bcpu-cp313-cp313-manylinux_2_28_x86_64.whl": False,
        "torch-2.13.0%2Bcpu.cxx11.abi-cp311-cp311-linux_x86_64.whl": False,
        "torch-2.13.01%2Bcpu-cp311-cp311-linux_x86_64.whl": False,
    }
    digests = {name: f"{number:064x}" for number, name in enumerate(names)}
    page.write_text("".join(f'<a href="/whl/cpu/{name}#sha256={digests[name]}">x</a>\n' for name in names))
    assert world.environments.locks.torch_hashes("2.13.0") == {
        "cpu": {f"sha256:{digests[name]}" for name, wanted in names.items() if wanted}
    }
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(world.environments.locks, "TORCH_URL", "http://127.0.0.1:9")
    assert world.environments.locks.torch_hashes("2.13.1") == {}
    assert "gives no hashes (cpu: " in capsys.readouterr().out


def test_uv_checks_a_build_against_all_hashes_of_the_version(world: World) -> None:
    """What the locks rely on: under torch==2.13.0 the hashes of 2.13.0+cpu count as well, and one has to fit."""
    digests = [world.add("pypi", "torch", version) for version in ("2.13.0", "2.13.0+cpu")]
    uv = world.environments.find_uv()
    subprocess.run([uv, "venv", "--quiet", "own"], check=True)
    install = [uv, "pip", "install", "--quiet", "--reinstall", "--python", "own", "-r", "requirements/tiny.txt"]
    for hashes, said in ((digests, ""), (digests[:1], "Hash mismatch for `torch==2.13.0+cpu`")):
        world.lock("", *hashes)
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        assert bool(done.returncode) == bool(said)
        assert said in done.stderr
