"""gitops.project.environments: how the template and every project make their environments; the locks it wrote."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from projects import ROOT

#: Stands for uv: notes what it is asked for, and makes what `uv venv` and `uv pip compile` make.
UV = """\
#!/bin/sh
case "$*" in
  --version) echo "uv 0.99.1"; exit ;;
esac
echo "$*" >> "$UV_CALLS"
for last; do true; done
case "$*" in
  venv*) rm -rf "$last"; mkdir -p "$last/bin"; : > "$last/bin/python" ;;
  *--output-file*) printf 'numpy==2.0 \\\\\\n    --hash=sha256:aa\\n' > requirements/.tiny.txt ;;
  *) mkdir -p .venv/tiny/lib/python3/site-packages/numpy-2.0.dist-info; exit "${UV_STATUS:-0}" ;;
esac
"""


@pytest.fixture
def repository(environments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one small environment named tiny, and a uv that only takes notes."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(UV)
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("UV_CALLS", str(tmp_path / "calls"))
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "requirements/tiny.in").write_text("numpy\n")
    (tmp_path / "requirements/tiny.txt").write_text(f"{environments.locks.digest_line('tiny')}\nnumpy==2.0\n")
    return tmp_path


def calls(repository: Path) -> list[str]:
    """Return what uv was asked for since the last time, and forget it."""
    notes = repository / "calls"
    lines = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return lines


def test_right_environment_is_left_alone(environments: ModuleType, repository: Path) -> None:
    environments.set_up("tiny")
    venv, install = calls(repository)
    assert venv.startswith("venv ")
    assert install.endswith("--requirement requirements/tiny.txt")
    environments.set_up("tiny")
    assert calls(repository) == []


@pytest.mark.parametrize("change", ["lock", "project", "moved", "python gone"])
def test_environment_is_rebuilt(
    change: str, environments: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments.set_up("tiny")
    calls(repository)
    if change == "lock":
        lock = repository / "requirements/tiny.txt"
        lock.write_text(lock.read_text().replace("2.0", "2.1"))
    elif change == "project":
        (repository / "pyproject.toml").write_text('[project]\nname = "x"\n')
    elif change == "moved":
        (repository / "elsewhere").mkdir()
        for name in (".venv", "requirements"):
            (repository / name).rename(repository / "elsewhere" / name)
        monkeypatch.chdir(repository / "elsewhere")
    else:
        (repository / ".venv/tiny/bin/python").unlink()
    environments.set_up("tiny")
    assert len(calls(repository)) == 2


def test_interrupted_installation_is_done_again(
    environments: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_STATUS", "3")
    with pytest.raises(SystemExit, match="ended with status 3"):
        environments.set_up("tiny")
    assert not (repository / ".venv/tiny/.stamp").exists()
    monkeypatch.delenv("UV_STATUS")
    environments.set_up("tiny")
    assert (repository / ".venv/tiny/.stamp").exists()


def test_changed_requirements_ask_for_a_new_lock(environments: ModuleType, repository: Path) -> None:
    (repository / "requirements/tiny.in").write_text("numpy\npandas\n")
    with pytest.raises(SystemExit, match=r"requirements/tiny\.in has changed .* run `make lock`"):
        environments.set_up("tiny")
    environments.locks.lock("tiny", upgrade=False)
    environments.set_up("tiny")
    (repository / "requirements/tiny.txt").unlink()
    with pytest.raises(SystemExit, match=r"requirements/tiny\.txt is missing: run `make lock`"):
        environments.set_up("tiny")


def test_unknown_name(environments: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["environments.py", "setup", "tinny"])
    with pytest.raises(SystemExit, match="tinny: there is no such environment, only tiny, kustomize"):
        environments.main()


#: What is made on first use: environment -> the command that needs it.
COMMANDS = {"explore": "explore", "debt": "debts"}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_one_command_needs_is_made_on_its_first_use(
    name: str, environments: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make setup` leaves it out, `make` makes it for the command that needs it, and `make lock` writes all locks."""
    assert set(environments.ON_FIRST_USE) == {*COMMANDS}
    (repository / f"requirements/{name}.in").write_text("skrub\n")
    monkeypatch.setattr(environments.kustomize_program, "set_up", lambda: done.append("kustomize"))
    monkeypatch.setattr(environments, "set_up", lambda name: done.append(name))
    monkeypatch.setattr(environments.locks, "lock", lambda name, upgrade: done.append(name))
    for arguments, wanted in (
        (["setup"], ["tiny", "kustomize"]),
        (["setup", name], [name]),
        (["lock"], [name, "tiny"]),
    ):
        done: list[str] = []
        monkeypatch.setattr(sys, "argv", ["environments.py", *arguments])
        environments.main()
        assert done == wanted


@pytest.mark.parametrize("name", COMMANDS)
def test_only_its_own_command_makes_it(name: str, project: Path) -> None:
    """No workflow, no image and no other target of the Makefile names it."""
    rules = [line for line in (project / "Makefile").read_text().splitlines() if f".venv/{name}" in line]
    assert [rule.partition(":")[0] for rule in rules] == [COMMANDS[name]]
    folders = (".github", ".devcontainer", "jobs", "serving")
    files = [path for folder in folders for path in (project / folder).rglob("*") if path.is_file()]
    assert len(files) > 10
    named = rf"make {COMMANDS[name]}\b|(\.venv|requirements)/{name}\b|setup .*\b{name}\b"
    assert [path for path in files if re.search(named, path.read_text())] == []


@pytest.mark.parametrize(
    ("version", "why"),
    [((3, 10, 14), ": name one"), ((3, 13, 0), r" \(Deepchecks needs numpy<2, .* for 3\.13\): name")],
)
def test_other_python(
    version: tuple[int, ...], why: str, environments: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=rf"3\.11 or 3\.12 is needed{why}.*PYTHON=python3\.12"):
        environments.set_up("tiny")
    assert calls(repository) == []


def test_lock_is_for_every_build(environments: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "# header\nnumpy==2.0 \\\n    --hash=sha256:aa\n    # via torch\nnvidia-nccl-cu13==2 ; sys_platform == 'x' \\"
        "\n    --hash=sha256:bb\n    # via torch\ntorch==2.13.0{} ; python_version > '3' \\\n    --hash=sha256:{}\n"
        "    # via -r x\ntriton==3 \\\n    --hash=sha256:dd\ncuda-bindings==13 \\\n    --hash=sha256:ee\nzipp==1\n"
    )
    lock = (
        "# header\nnumpy==2.0 \\\n    --hash=sha256:aa\n    # via torch\ntorch==2.13.0 ; python_version > '3' \\\n"
        "{}    # hashes of the builds {}\n    # via -r x\nzipp==1\n"
    )
    one = lock.format("    --hash=sha256:c1\n", "pypi")
    two = lock.format("    --hash=sha256:c1 \\\n    --hash=sha256:c2\n", "cpu, pypi")
    monkeypatch.setattr(environments.locks, "torch_hashes", lambda version: {})
    assert environments.locks.with_torch_builds(text.format("", "c1"), "") == one
    assert environments.locks.with_torch_builds(text.format("+cpu", "c2"), one) == two
    # What PyTorch's index said before stays while it is out of reach, but not for another version.
    assert environments.locks.with_torch_builds(text.format("", "c1"), two) == two
    assert environments.locks.with_torch_builds(text.format("", "c1"), two.replace("2.13.0", "2.12.0")) == one
    monkeypatch.setattr(environments.locks, "torch_hashes", lambda version: {"cpu": {"sha256:c2"}} if version else {})
    assert environments.locks.with_torch_builds(text.format("", "c1"), one) == two
    assert environments.locks.with_torch_builds("# header\nzipp==1\n", two) == "# header\nzipp==1\n"


def test_project_locks(project: Path, environments: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is made from what the project asks for, holds hashes for all but the project itself, and no CUDA."""
    monkeypatch.chdir(project)
    for name, without_hash in (
        ("pipeline", {"-e ."}),
        ("validate", {"-e ."}),
        ("serve", set()),
        ("explore", set()),
        ("debt", set()),
    ):
        text = Path(f"requirements/{name}.txt").read_text()
        assert text.startswith(f"{environments.locks.digest_line(name)}\n")
        entries = {re.split("==|\n", entry)[0]: entry for entry in re.split(r"\n(?=[^\s#])", text)[1:]}
        assert {entry for entry, lines in entries.items() if "--hash=sha256:" not in lines} == without_hash
        torch = entries.get("torch", "")
        builds = re.match(r"torch==[\d.]+ \\\n(?: +--hash=.*\n)+ +# hashes of the builds (.+)\n", torch)
        assert name in ("validate", "explore", "debt") or (builds and "pypi" in builds[1].split(", "))
        assert not [entry for entry in entries if entry.startswith(("nvidia", "cuda", "triton"))]


class Release:
    """A server on this machine that stands for kustomize's release page."""

    def __init__(self, folder: Path) -> None:
        self.archive = folder / "kustomize.tar.gz"
        with tarfile.open(self.archive, "w:gz") as members:
            content = b"#!/bin/sh\necho v5.8.1\n"
            member = tarfile.TarInfo("kustomize")
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/kustomize.tar.gz"


@pytest.fixture
def release(
    environments: ModuleType,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Release]:
    """The release page, with the right checksum, for a machine without kubectl and kustomize."""
    release = Release(tmp_path_factory.mktemp("release"))
    threading.Thread(target=release.server.serve_forever, daemon=True).start()
    checksum = hashlib.sha256(release.archive.read_bytes()).hexdigest()
    program = environments.kustomize_program
    monkeypatch.setattr(program, "KUSTOMIZE_URL", release.url)
    monkeypatch.setattr(program, "KUSTOMIZE_SHA256", dict.fromkeys(program.KUSTOMIZE_SHA256, checksum))
    monkeypatch.setenv("PATH", str(repository / "bin"))
    yield release
    release.server.shutdown()
    release.server.server_close()


def test_kustomize_is_fetched_once(environments: ModuleType, release: Release) -> None:
    environments.kustomize_program.set_up()
    program = Path(".venv/bin/kustomize")
    assert program.read_text().endswith("echo v5.8.1\n")
    assert program.stat().st_mode & 0o777 == 0o755
    release.archive.unlink()
    environments.kustomize_program.set_up()


@pytest.mark.parametrize("program", ["kubectl", "kustomize"])
def test_kustomize_of_the_machine_is_enough(program: str, environments: ModuleType, release: Release) -> None:
    Path("bin", program).symlink_to("/bin/true")
    environments.kustomize_program.set_up()
    assert not Path(".venv").exists()


def test_kustomize_with_another_checksum(
    environments: ModuleType, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = environments.kustomize_program
    monkeypatch.setattr(program, "KUSTOMIZE_SHA256", dict.fromkeys(program.KUSTOMIZE_SHA256, "0" * 64))
    with pytest.raises(SystemExit, match=r"not 0000.* as released: it is not installed"):
        environments.kustomize_program.set_up()
    assert not Path(".venv").exists()


def test_kustomize_out_of_reach(environments: ModuleType, release: Release) -> None:
    release.archive.unlink()
    with pytest.raises(SystemExit, match=r"cannot be fetched .*404.*: install kubectl or kustomize"):
        environments.kustomize_program.set_up()


def test_kustomize_for_an_unknown_machine(
    environments: ModuleType, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments.kustomize_program.platform, "machine", lambda: "riscv64")
    with pytest.raises(SystemExit, match="riscv64: install kubectl or kustomize"):
        environments.kustomize_program.set_up()


#: Stands for uv's wheel: its program says its version.
PROGRAM = "#!/bin/sh\necho uv 0.13.9\n"


def wheel(folder: Path, name: str, version: str, program: str = "") -> Path:
    """Write a wheel with one module and, where it is given, one program; return its path."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if program:
        files[f"{name}-{version}.data/scripts/{name}"] = program
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
    return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip and uv look at: what says where packages come from keeps counting."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name in ("PIP", "UV"):
        monkeypatch.setenv(f"{name}_FIND_LINKS", str(folder))
        monkeypatch.setenv(f"{name}_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


#: Variables of a shell that send packages elsewhere, forbid them, or name others.
ELSEWHERE = {
    "PIP_USER": "1",
    "PIP_TARGET": "elsewhere",
    "PIP_PREFIX": "elsewhere",
    "PIP_ROOT": "elsewhere",
    "PIP_DRY_RUN": "1",
    "PIP_REQUIRE_HASHES": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PYTHONUSERBASE": "elsewhere",
    "PYTHONSAFEPATH": "1",
    "UV_CONSTRAINT": "others.txt",
    "UV_BUILD_CONSTRAINT": "others.txt",
    "UV_OVERRIDE": "others.txt",
    "UV_EXCLUDE": "others.txt",
    "UV_REQUIRE_HASHES": "1",
    "UV_WORKING_DIR": "/nonexistent",
    "UV_SYSTEM_PYTHON": "1",
    "UV_PYTHON": "3.9",
    "UV_TARGET": "elsewhere",
    "UV_PREFIX": "elsewhere",
    "UV_PROJECT_ENVIRONMENT": "elsewhere",
    "UV_MANAGED_PYTHON": "1",
    "VIRTUAL_ENV": "/nonexistent",
    "CONDA_PREFIX": "/nonexistent",
}


def test_pip_installs_uv_whatever_the_shell_says(
    environments: ModuleType, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of a user, a pip.conf of a user, and modules on a foreign path that would shadow pip's."""
    wheel(wheels, "uv", "0.13.9", PROGRAM)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/pip.py").write_text("raise SystemExit('not this one')\n")
    for name, value in (ELSEWHERE | {"PYTHONPATH": "foreign", "PIP_CONFIG_FILE": "pip.conf"}).items():
        monkeypatch.setenv(name, value)
    assert environments.find_uv() == Path(".venv/uv/bin/uv")
    assert not (tmp_path / "elsewhere").exists()


def test_pip_that_puts_uv_elsewhere_is_one_line(
    environments: ModuleType, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(wheels, "uv", "0.13.9", PROGRAM)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "pip.conf").write_text("[install]\ntarget = elsewhere\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", "pip.conf")
    with pytest.raises(SystemExit, match=r"^error: pip put no uv into .*/bin: .* `target` in pip\.conf$"):
        environments.find_uv()


@pytest.fixture
def uv(environments: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real one."""
    monkeypatch.chdir(ROOT)
    return Path(environments.find_uv()).absolute()


@pytest.fixture
def tiny(environments: ModuleType, uv: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one environment, of one package and the project itself."""
    monkeypatch.setattr(environments, "find_uv", lambda: uv)
    digest = hashlib.sha256(wheel(wheels, "tiny", "1.0").read_bytes()).hexdigest()
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/tiny.in").write_text("tiny\n-e .\n")
    lock = f"{environments.locks.digest_line('tiny')}\ntiny==1.0 --hash=sha256:{digest}\n-e .\n"
    (tmp_path / "requirements/tiny.txt").write_text(lock)
    build = '[build-system]\nrequires = ["uv_build>=0.8,<1"]\nbuild-backend = "uv_build"\n'
    (tmp_path / "pyproject.toml").write_text(f'{build}[project]\nname = "own"\nversion = "1"\n')
    (tmp_path / "src/own").mkdir(parents=True)
    (tmp_path / "src/own/__init__.py").touch()
    (tmp_path / "others.txt").write_text("tiny==2.0\n")
    return tmp_path


def test_uv_installs_the_lock_whatever_the_shell_says(
    environments: ModuleType, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (ELSEWHERE | {"PYTHONPATH": "foreign"}).items():
        monkeypatch.setenv(name, value)
    environments.set_up("tiny")
    program = "import importlib.metadata as m, own, tiny; print(m.version('tiny'), tiny.__file__)"
    own = {"PATH": os.environ["PATH"]}
    done = subprocess.run([".venv/tiny/bin/python", "-c", program], env=own, capture_output=True, text=True, check=True)
    version, place = done.stdout.split()
    assert version == "1.0" and place.startswith(f"{tiny}/.venv/tiny/lib/")
    assert not (tiny / "elsewhere").exists()


@pytest.mark.parametrize("setting", ["target", "prefix"])
def test_uv_that_puts_packages_elsewhere_is_one_line(
    setting: str, environments: ModuleType, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny / "uv.toml").write_text(f'[pip]\n{setting} = "{tiny}/elsewhere"\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(tiny / "uv.toml"))
    with pytest.raises(SystemExit, match=r"^error: uv put nothing into \.venv/tiny: remove `target` or `prefix` from"):
        environments.set_up("tiny")
    assert not (tiny / ".venv/tiny/.stamp").exists()


@pytest.mark.parametrize("name", ["a:b", "O'Brien", "what?"])
def test_a_path_that_no_tool_copes_with_is_refused(
    name: str, environments: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python makes no environment there, Java finds no class, MLflow creates no database."""
    (repository / name).mkdir()
    (repository / "requirements").rename(repository / name / "requirements")
    monkeypatch.chdir(repository / name)
    (sign,) = set(":'?") & set(name)
    with pytest.raises(SystemExit) as error:
        environments.set_up("tiny")
    assert str(error.value) == f"error: the project is in {Path.cwd()}: move it to a path without {sign}"
    assert calls(repository) == []
