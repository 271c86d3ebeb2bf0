"""Text from outside is shown by a terminal and a GitHub runner, never obeyed."""

from __future__ import annotations

import pytest
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import one_line, printable


def obeyed(text: str) -> bool:
    """Tell whether a runner would take a line for a command; it reads lines as .NET does, and trims them."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return any(line.strip().startswith("::") or "##[" in line for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "::error::x",
        "  ::error::x",
        "\t::add-mask::x",
        ":: ::error::x",
        "::::error::x",
        ":\u200b:error::x",
        "\u2028::error::x",
        "said:\n::error::x",
        "said\r::error::x",
        "\x1b[2K::error::x",
        "x ##[error]y",
        "#\x00#[error]y",
        "###[group]y",
    ],
)
def test_no_line_is_a_command(text: str) -> None:
    for shown in (printable(text), one_line(text)):
        assert not obeyed(shown), shown
        assert "error" in shown or "mask" in shown or "group" in shown


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
