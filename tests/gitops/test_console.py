"""Text from outside is shown by a terminal and a GitHub runner, never obeyed, and nothing prints it another way."""

from __future__ import annotations

import ast
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from gitops.core import code, console
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import annotate, echo, one_line, printable, relay

HOSTILE = [
    "::error::x",
    "  ::error::x",
    "\t::add-mask::x",
    ":: ::error::x",
    "::::error::x",
    ":\u200b:error::x",
    "\u200b::error::x",
    "\ufeff::error::x",
    "\u2028::error::x",
    "\u00a0\u3000::ERROR::x",
    "said:\n::error::x",
    "said\r::error::x",
    "said\x85::error::x",
    "\x1b[2K::error::x",
    "x ##[error]y",
    "#\x00#[error]y",
    "###[group]y",
    "x\ufe0f##[error]y",
    "\udc80::error::x",
]


def obeyed(text: str) -> bool:
    """Tell whether a runner would take a line for a command; it reads lines as .NET does, and trims them."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return any(line.strip().startswith("::") or "##[" in line for line in lines)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_line_is_a_command(text: str) -> None:
    for shown in (printable(text), one_line(text)):
        assert not obeyed(shown), shown
        assert any(word in shown.lower() for word in ("error", "mask", "group"))
        assert printable(shown) == shown  # a relayed line has been through it before


def test_control_characters_are_removed_and_lines_stay() -> None:
    assert printable("a\tb\x1b[31m\x07\x9b1m\u202e\n  c::d é €") == "a b[31m1m\n  c::d é €"


def test_one_line() -> None:
    assert one_line("a\n\n  b\tc") == "a b c"
    assert one_line("x" * 1000, 10) == "x" * 10


def test_an_error_is_printed_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ProjectError("git said:\n::stop-commands::x")

    with pytest.raises(SystemExit):
        run(fail)
    assert capsys.readouterr().err == "error: git said:\n: :stop-commands::x\n"


def test_echo(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\n::error::b", Path("c"))
    echo("::d::e", error=True)
    assert capsys.readouterr() == ("a\n: :error::b\nc\n", ": :d::e\n")


def test_a_warning_is_one_command_and_only_on_github(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    annotate("warning", "Title", "a")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotate("error", "Title", "100%\n::error::b ##[c]%0Ad")
    assert capsys.readouterr().out == "::error title=Title::100%25 ::error::b ## [c]%250Ad\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_relayed_program_is_not_obeyed(text: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither its output nor its errors; a traceback quotes what it likes."""
    program = (
        f"import sys\ntext = {text!r}.encode('utf-8', 'surrogateescape')\nsys.stdout.buffer.write(text + b'\\xff')\n"
    )
    program += "sys.stdout.flush()\nprint()\nraise ValueError(text.decode('utf-8', 'replace'))"
    assert relay([sys.executable, "-c", program], log=tmp_path / "log") == 1
    said = capfd.readouterr()
    assert not obeyed(said.out) and not said.err
    assert "Traceback" in said.out and "ValueError" in (tmp_path / "log").read_text()


def test_a_program_has_a_terminal_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For its progress bars; the person there reads what it says, and no file does."""
    monkeypatch.chdir(tmp_path)
    here, there = pty.openpty()
    child = "import sys; print(sys.stdout.isatty())"
    program = "import sys\nfrom pathlib import Path\nfrom gitops.core.console import relay\n"
    program += f"sys.exit(relay([sys.executable, '-c', {child!r}], log=Path('log')))"
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", program],
        os.environ | {"PYTHONPATH": str(code.SOURCE)},
        file_actions=[(os.POSIX_SPAWN_DUP2, there, 1)],
    )
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert os.read(here, 100) == b"True\r\n" and not Path("log").exists()


@pytest.mark.parametrize(
    ("answer", "yes"), [("y", True), (" YES ", True), ("", False), ("n", False), ("yesterday", False)]
)
def test_only_a_clear_yes_goes_on(answer: str, yes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert console.confirmed("Erase it?") is yes and asked == ["Erase it? [y/N] "]


def test_nobody_says_no(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert console.confirmed("Erase it?") is False
    assert capsys.readouterr().out.startswith("Erase it? Nobody can be asked here, and --yes is not given")


#: What is not held to it, each with the reason.
FREE = {
    "gitops/core/console.py",
    # Flushes the streams before Python does.
    "gitops/core/failures.py",
    # Runs in the image without core, and prints one line that it has escaped.
    "gitops/serving/server/probe.py",
}

#: Runs on the standard library alone, and prints what the checkout, the locks and the person's own repository say.
BEFORE_ANY_ENVIRONMENT = "gitops/project/"

#: Start a module that prints by itself and is held to the same: candidate.py, mlflow_run.py, mlflow_files.py.
LETS_PRINT = {
    "gitops/integrations/tracking.py",
    "gitops/retraining/retrain.py",
    "gitops/retraining/stages.py",
}


STREAM = re.compile(r"sys\.(__)?std(out|err)(__)?")
PROGRAMS = ("subprocess.run", "subprocess.Popen", "subprocess.call")
EXITS = ("sys.exit", "SystemExit", "exit", "quit")
NEVER = ("os.system", "os.write", "os.popen", "os.spawnv", "subprocess.check_call", "pprint.pprint", "warnings.warn")


def prints(tree: ast.AST) -> list[str]:
    """Return what puts anything but literals on the console, in a module's own words."""
    nodes = [*ast.walk(tree)]
    items = [item for node in nodes if isinstance(node, ast.With) for item in node.items if item.optional_vars]
    bars = {ast.unparse(item.optional_vars) for item in items if ast.unparse(item.context_expr).startswith("tqdm(")}
    asked = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr == "isatty"}
    streams = [node for node in nodes if isinstance(node, ast.Attribute) and STREAM.fullmatch(ast.unparse(node))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and shows(node, bars)]
    return [ast.unparse(node) for node in (*calls, *streams) if id(node) not in asked]


def shows(call: ast.Call, bars: set[str]) -> bool:
    """Tell whether a call shows data, or lets another program show it; `bars` are progress bars."""
    name, given = ast.unparse(call.func), {keyword.arg for keyword in call.keywords}
    if name == "print":
        return not all(isinstance(argument, ast.Constant) for argument in call.args)
    if name in EXITS:  # a text is printed, a status is not
        return any(isinstance(part, ast.JoinedStr) for part in ast.walk(call))
    if name in PROGRAMS:
        return "capture_output" not in given and not {"stdout", "stderr"} <= given
    if name in {f"{bar}.write" for bar in (*bars, "tqdm")}:
        return not ast.unparse(call.args[0]).startswith(("printable(", "one_line("))
    return name in NEVER


MODULES = [path.relative_to(code.SOURCE).as_posix() for path in sorted(code.SOURCE.rglob("*.py"))]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(BEFORE_ANY_ENVIRONMENT)])
def test_data_is_printed_by_no_other_module(module: str) -> None:
    """`echo`, `annotate` and `relay` are all that prints data or lets another program print it."""
    found = prints(ast.parse((code.SOURCE / module).read_text(encoding="utf-8")))
    if module in FREE:
        assert found, "it prints nothing: take it out of FREE"
    elif module in LETS_PRINT:
        assert len(found) == 1 and re.match(r"subprocess\.(run|Popen)\(command\b", found[0]), found
    elif module == "gitops/serving/server/start.py":  # what the operator has set, before the server starts
        assert all(each.startswith(("sys.exit(", "subprocess.Popen(java")) for each in found), found
    else:
        assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "print(f'{name} failed')",
        "print('a', name)",
        "sys.stdout.write(name)",
        "print('a', file=sys.stderr) or sys.stderr.buffer.write(name)",
        "sys.exit(f'error: {name}')",
        "raise SystemExit(f'error: {name}')",
        "subprocess.run(['git', 'log'], check=False)",
        "subprocess.Popen(['git', 'log'], stdout=subprocess.PIPE)",
        "with tqdm(rows) as bar:\n    bar.write(name)",
        "os.system('git log')",
        "warnings.warn(f'{name}')",
    ],
)
def test_another_way_is_found(line: str) -> None:
    assert prints(ast.parse(line))


def test_literals_and_statuses_are_no_data() -> None:
    allowed = (
        "print('.', end='', flush=True)\nsys.exit(status)\nsys.stdout.isatty()\nsubprocess.run(a, capture_output=True)"
    )
    assert prints(ast.parse(allowed)) == []
