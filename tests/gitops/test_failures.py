"""How a command ends: one line for an error, a file for its traceback, nothing for a reader who has gone."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.retraining import pipeline

SOURCE = ROOT / "src"

#: Programs with an ending of their own: the server's log is its console, and a probe has nothing but the library.
OTHERS = {f"gitops/serving/server/{name}.py" for name in ("drift_metrics", "probe", "start")}

COMMAND = """
import os, sys
from gitops.{runner}


def main():
    {body}


run(main)
"""

CORE = "core.artifacts import ProjectError, run"
BARE = "project.command import run"
both = pytest.mark.parametrize("runner", [CORE, BARE])


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()


def command(body: str, runner: str = CORE, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of this body as `python -m command`, as stages run."""
    Path("src/command.py").write_text(COMMAND.format(body=body, runner=runner))
    environment = os.environ | {"PYTHONPATH": f"src{os.pathsep}{SOURCE}", "API_TOKEN": "abc123secret"}
    environment.pop("PYTHONUNBUFFERED", None)
    options = {"stdout": subprocess.PIPE} | options
    arguments = [sys.executable, "-m", "command"]
    return subprocess.run(
        arguments, env=environment, stderr=subprocess.PIPE, text=True, check=False, timeout=60, **options
    )


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_every_command_ends_this_way() -> None:
    """A module that is run calls `run` of core/artifacts.py, or that of project/command.py, and nothing else."""
    found = {}
    for path in [*SOURCE.glob("gitops/**/*.py"), *SOURCE.glob(f"{params.package()}/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        blocks = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.dump(node.test)]
        if blocks:
            found[path.relative_to(SOURCE).as_posix()] = ast.unparse(blocks[0].body[-1])
    assert len(found) > 25
    for name, call in found.items():
        if name not in OTHERS:
            assert call == "command.run(main)" if "/project/" in name else call in ("run(main)", "artifacts.run(main)")
    assert found.keys() >= OTHERS


@both
def test_an_unexpected_error_is_one_line_and_a_file(runner: str) -> None:
    done = command("{}['two\\nlines']", runner)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: command failed: KeyError: 'two\\nlines'")
    path = Path(line.rpartition("traceback: ")[2])
    assert path == Path("reports/errors/command.txt") and "Traceback" in path.read_text()
    assert [*path.parent.iterdir()] == [path]
    if runner == CORE:
        assert " (src/command.py:7); " in line


def test_a_mistake_in_a_module_that_is_imported_is_one_line_too(tmp_path: Path) -> None:
    """As in features.py, which a stage imports before anything runs. Other programs have Python's traceback."""
    shutil.copytree(SOURCE / "gitops/core", "src/gitops/core")
    shutil.copy(SOURCE / "gitops/__init__.py", "src/gitops")
    for name, text in (("__init__", ""), ("features", "def encode(:\n"), ("stage", "from . import features\n")):
        path = Path("src/model", f"{name}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text("from gitops.core import artifacts\n" * (name == "stage") + text)
    environment = os.environ | {"PYTHONPATH": "src"}
    for arguments, lines in (("-m", "model.stage"), 1), (("-c", "import model.stage"), 5):
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and (len(done.stderr.splitlines()) == 1) == (lines == 1), done.stderr
        assert "SyntaxError" in done.stderr
    assert "def encode(:" in Path("reports/errors/model.stage.txt").read_text()


def test_neither_the_line_nor_the_file_holds_a_secret() -> None:
    done = command("local = 'in a variable'; raise ValueError('http://me:hid@den@host/x, ' + os.environ['API_TOKEN'])")
    (line,) = done.stderr.splitlines()
    file = Path("reports/errors/command.txt")
    for text in (line, file.read_text().splitlines()[-1]):
        assert "ValueError: http://host/x, ***" in text
    assert "abc123secret" not in file.read_text() and file.stat().st_mode & 0o077 == 0
    assert "hidden" not in command("raise ProjectError('fetch https://token:hidden@host/x failed')").stderr


def test_a_traceback_that_cannot_be_written_is_printed() -> None:
    """As in a pod, whose file system is read-only and whose log is kept."""
    Path("reports").write_text("a file")
    done = command("1 / 0")
    assert done.returncode == 1 and done.stderr.startswith("error: command failed: ZeroDivisionError")
    assert "Traceback" in done.stderr
    assert "no traceback" in command("1 / 0", BARE).stderr


@both
def test_an_interrupt_is_one_word(runner: str) -> None:
    done = command("raise KeyboardInterrupt", runner)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@both
@pytest.mark.parametrize("body", ["print('x' * 1_000_000)", "print('x')", "print('x'); sys.exit(0)"])
def test_a_closed_pipe_ends_quietly(runner: str, body: str) -> None:
    """While it prints, and when Python flushes what is left at the end."""
    done = command(body, runner, stdout=closed_pipe())
    assert (done.returncode, done.stderr) == (141, "")


def test_a_failure_is_said_though_nobody_reads_the_output() -> None:
    done = command("print('x'); raise ProjectError('data.path is wrong')", stdout=closed_pipe())
    assert (done.returncode, done.stderr) == (1, "error: data.path is wrong\n")


def test_a_broken_connection_is_no_closed_pipe() -> None:
    body = "r, w = os.pipe(); os.close(r); os.write(w, b'x')"
    done = command(body)
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr and "traceback: " in done.stderr


def test_a_full_disk_and_a_refused_file_are_one_line_with_the_path() -> None:
    with open("/dev/full", "w") as full:
        done = command("print('x')", stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device: standard output\n")
    done = command("raise PermissionError(13, 'Permission denied', 'data/raw.csv')")
    assert (done.returncode, done.stderr) == (1, "error: Permission denied: data/raw.csv\n")
    body = "from pathlib import Path; from gitops.core.artifacts import replacing\n    with replacing(Path('out/x')): "
    done = command(f"{body}raise OSError(28, 'No space left on device')")
    assert (done.returncode, done.stderr) == (1, "error: No space left on device: out/x\n")
    assert [*Path("out").iterdir()] == [] and not Path("reports").exists()


def test_what_pytorch_says_of_a_full_disk_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("."))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 0))
    path = Path("checkpoint.pt")
    with pytest.raises(OSError, match="No space left on device: 'checkpoint") as error, artifacts.replacing(path):
        raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed")
    assert error.value.errno == errno.ENOSPC


def test_a_failed_stage_prints_no_traceback() -> None:
    """Neither the stage nor DVC, which runs it, nor `make pipeline`, which runs DVC."""
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc = str(pipeline.DVC)
    subprocess.run([dvc, "init", "--quiet"], check=True)
    command("1 / 0")
    shutil.rmtree("reports")
    stage = f"PYTHONPATH=src:{SOURCE} {sys.executable} -m command"
    Path("dvc.yaml").write_text(f"stages: {{fail: {{cmd: '{stage}'}}}}")
    body = f"from gitops.retraining import pipeline; return pipeline.run(['{dvc}', 'repro'])"
    program = COMMAND.format(body=body, runner=CORE)
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("ZeroDivisionError") == 1 and Path("reports/errors/command.txt").exists()


def test_a_pipeline_ends_though_nobody_reads_its_output() -> None:
    """`make pipeline | head -1`: an hour of training is worth more than its output."""
    run = "[sys.executable, '-c', \"for _ in range(3): print('x' * 100_000)\\nopen('done', 'w')\"]"
    done = command(f"from gitops.retraining import pipeline; return pipeline.run({run})", stdout=closed_pipe())
    assert done.stderr == "" and Path("done").exists()
    assert artifacts.PIPELINE_LOG.stat().st_size > 300_000


def test_a_link_to_a_cache_is_replaced_and_not_written_through() -> None:
    cached, path = Path("cached"), Path("model/model.pt2")
    cached.write_text("old")
    cached.chmod(0o444)
    path.parent.mkdir()
    path.symlink_to(cached.resolve())
    artifacts.write_text(path, "new")
    assert cached.read_text() == "old" and path.read_text() == "new" and not path.is_symlink()


def test_conflict_markers_name_the_file() -> None:
    path = Path("appended.json")
    path.write_text('{\n<<<<<<< HEAD\n"a": 1\n=======\n"a": 2\n>>>>>>> other\n}')
    with pytest.raises(ProjectError, match=r"appended\.json holds a merge's conflict.*git add appended\.json"):
        artifacts.read_json(path, "make pipeline")
    pointer = Path("raw.csv.dvc")
    pointer.write_text("outs:\n<<<<<<< HEAD\n- md5: 1\n=======\n- md5: 2\n>>>>>>> other\n  path: raw.csv\n")
    with pytest.raises(ProjectError, match=r"raw\.csv\.dvc holds a merge's conflict"):
        artifacts.tracked_md5(Path("raw.csv"))
    Path("params.yaml").write_text("data:\n<<<<<<< HEAD\n  path: a\n=======\n  path: b\n>>>>>>> other\n")
    with pytest.raises(ProjectError, match=r"params\.yaml holds a merge's conflict"):
        params.load()
