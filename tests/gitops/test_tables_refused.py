"""Tables that cannot be read rightly are refused, with the column, the line and the setting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import small_table
from gitops.core.artifacts import ProjectError
from gitops.tabular import csv_file
from table_cases import ROWS, A, comma, lines, read, settings, write

GOOD = lines("{a},{colour},{y}")
LAST = lines("{a},{y},{colour}")
TRAILING = lines("{a},{colour},{y},")

#: Content, settings, and what the error says.
REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "short rows": (
        "\n".join(["a,colour,y", "0.5,green", *GOOD[1:], "0.1"]).encode(),
        {},
        "2 rows do not have the 3 cells of the header, the first in line 2, which has 2",
    ),
    "a long row after a quoted line end": (
        "\n".join(["a,colour,y", '1,"two\nlines",yes', *GOOD[2:], "1,red,yes,more"]).encode(),
        {},
        "1 rows do not have the 3 cells of the header, the first in line 62, which has 4",
    ),
    "a trailing comma on every row": (
        "\n".join(["a,colour,y", *TRAILING]).encode(),
        {},
        "every row ends with ',' and the header does not",
    ),
    "a trailing comma, the target first": (
        "\n".join(["y,a,colour", *lines("{y},{a},{colour},")]).encode(),
        {},
        "every row ends with ',' and the header does not",
    ),
    "a trailing comma on every line": (
        "\n".join(["a,colour,y,", *TRAILING]).encode(),
        {},
        "every line ends with ',', which makes a column 4 without a name and values",
    ),
    "a repeated name": (
        "\n".join(["a,b,a,y", *lines("{a},1,2,{y}")]).encode(),
        {},
        "columns 1 and 3 are both called 'a': name one otherwise, or add 'a' to data.drop",
    ),
    "an index without a name": (
        "\n".join([",a,y", *lines("{row},{a},{y}")]).encode(),
        {},
        "column 1 has no name: name it, or add '' to data.drop",
    ),
    "an index that pandas has named": (
        "\n".join(["a,Unnamed: 0,y", *lines("{a},{row},{y}")]).encode(),
        {},
        "column 2 is 'Unnamed: 0', an index that was written along: name it, or add 'Unnamed: 0' to data.drop",
    ),
    "semicolons": (
        "\n".join(["a;colour;y", *lines("{a};{colour};{y}")]).encode(),
        {},
        'the header is one cell, which holds ";": set data.csv.delimiter to ";"',
    ),
    "semicolons with decimal commas": (
        "\n".join(["a;colour;y", *lines("{c};{colour};{y}", c=[comma(number) for number in A])]).encode(),
        {},
        'set data.csv.delimiter to ";"',
    ),
    "tabs": ("\n".join(["a\ty", *lines("{a}\t{y}")]).encode(), {}, 'set data.csv.delimiter to "\\t"'),
    "bars": ("\n".join(["a|y", *lines("{a}|{y}")]).encode(), {}, 'set data.csv.delimiter to "|"'),
    "cp1252 in the header": (
        "\n".join(["größe,y", *lines("{a},{y}")]).encode("cp1252"),
        {},
        "line 1 holds bytes that are not utf-8: set data.csv.encoding to that of the file, most likely cp1252",
    ),
    "cp1252 in a row": (
        "\n".join(["a,colour,y", *GOOD[:3], "1,größe,yes", *GOOD[4:]]).encode("cp1252"),
        {},
        "line 5 holds bytes that are not utf-8",
    ),
    "utf-16": (
        "\n".join(["a,colour,y", *GOOD]).encode("utf-16"),
        {},
        "it begins with the byte-order mark of utf-16: set data.csv.encoding to utf-16",
    ),
    "utf-16 without a mark": (
        "\n".join(["a,colour,y", *GOOD]).encode("utf-16-le"),
        {},
        "every other byte is zero, as in utf-16: set data.csv.encoding to utf-16-le or utf-16-be",
    ),
    "a zero byte": (
        "\n".join(["a,colour,y", *GOOD[:9], "1,g\0,yes", *GOOD[10:]]).encode(),
        {},
        "line 11 holds a zero byte",
    ),
    "a quote that is not closed": (
        "\n".join(["a,y,colour", *LAST[:9], '1,yes,"red', *LAST[10:], ""]).encode(),
        {},
        "a quote in the row that begins in line 11 is not closed",
    ),
    "no byte": (b"", {}, "the file is empty; a header and rows are expected"),
    "empty lines": (b"\n\n\n", {}, "the file is empty; a header and rows are expected"),
    "a header alone": (b"a,y\n", {}, "the table has no rows"),
    "a header without a line end": (b"a,y", {}, "the table has no rows"),
    "one column": ("\n".join(["y", *lines("{y}")]).encode(), {}, "no column left to learn from"),
    "all values missing": (
        "\n".join(["a,y", *lines("?,{y}")]).encode(),
        {},
        "column 'a' has no value in the training rows",
    ),
    "whole numbers beyond 2**53": (
        "\n".join(["customer,a,y", *lines("{id},{a},{y}", id=[3, *range(2**53 + 1, 2**53 + ROWS)])]).encode(),
        {},
        "column 'customer' of {path} holds whole numbers beyond 2**53, which a model's number cannot tell apart, in 59 "
        "rows, the first is line 3: add it to data.categorical if they are codes, or to data.drop",
    ),
    "an impossible date": (
        "\n".join(["day,y", *lines("{day},{y}", day=["2024-02-28"] * 58 + ["2024-02-30", "2024-02-31"])]).encode(),
        {},
        "column 'day' of {path} holds dates, and what is no date of the calendar in 2 rows, the first is line 60",
    ),
    "dates with the day first": (
        "\n".join(["day,y", *lines("{day},{y}", day=[f"{n % 28 + 1}/01/2024" for n in range(ROWS)])]).encode(),
        {},
        "column 'day' of {path} holds dates that are not written as ISO 8601 in 60 rows, the first is line 2: write "
        "them as 2026-01-31",
    ),
    "dates with a month's name": (
        "\n".join(["day,y", *lines("{day},{y}", day=[f"Mar {n % 28 + 1} 2024 10:30" for n in range(ROWS)])]).encode(),
        {},
        "column 'day' of {path} holds dates that are not written as ISO 8601 in 60 rows",
    ),
    "times of a day": (
        "\n".join(["at,y", *lines("{at},{y}", at=[f"{n % 24}:15" for n in range(ROWS)])]).encode(),
        {},
        "column 'at' of {path} holds times of a day in 60 rows, the first is line 2",
    ),
    "negative numbers in parentheses": (
        "\n".join(["x,y", *lines("{x},{y}", x=[f"({n}.5)" if n % 3 else f"{n}.5" for n in range(ROWS)])]).encode(),
        {},
        "40 rows, the first is line 3: write negative numbers with a minus sign",
    ),
    "a dash where there is no number": (
        "\n".join(["x,y", *lines("{x},{y}", x=["-" if n % 2 else n % 5 for n in range(ROWS)])]).encode(),
        {},
        "column 'x' of {path} holds numbers, and texts in 30 rows, the first is line 3: add the texts to data.missing",
    ),
    "quantities, of which many are unknown": (
        "\n".join(["x,y", *lines("{x},{y}", x=["unknown" if n % 2 else n for n in range(ROWS)])]).encode(),
        {},
        "column 'x' of {path} holds numbers, and texts in 30 rows, the first is line 3: add the texts to data.missing",
    ),
    "a number that is infinite": (
        "\n".join(["x,y", *lines("{x},{y}", x=["1"] * 58 + ["-inf", "1e400"])]).encode(),
        {},
        "column 'x' of {path} is infinite in 2 rows, the first is line 60",
    ),
    "a name of the splits": (
        "\n".join(["__row__,a,y", *lines("{row},{a},{y}")]).encode(),
        {},
        "has a column '__row__', a name that the splits use",
    ),
    "another name of the splits": (
        "\n".join(["__group__,a,y", *lines("{row},{a},{y}")]).encode(),
        {},
        "has a column '__group__', a name that the splits use",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_is_refused_with_column_line_and_setting(case: str, tmp_path: Path) -> None:
    content, changes, message = REFUSED[case]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ProjectError) as error:
        small_table.prepared(settings(path, **changes))
    assert message.format(path=path) in str(error.value)


@pytest.mark.parametrize(
    "texts", [["0", "1", "2", "3+"], ["18-27", "28-37"], ["1.2.3", "1.10.0"], ["<10", "10", ">10"]]
)
def test_codes_that_look_like_numbers_are_a_category(texts: list[str], tmp_path: Path) -> None:
    column = [texts[row % len(texts)] for row in range(ROWS)]
    frame = read(write(tmp_path / "t.csv", "code,a,y", lines("{code},{a},{y}", code=column)))
    assert frame["code"].tolist() == column


@pytest.mark.parametrize(
    ("csv", "named"),
    [
        ({"encoding": "utf-9"}, "encoding is 'utf-9', which is none"),
        ({"delimiter": "\n"}, "delimiter is '\\n'"),
        ({"delimiter": "a"}, "delimiter is 'a'"),
        ({"delimiter": "→"}, "delimiter is '→'"),
        ({"thousands": "."}, "thousands is '.', which cannot separate digits where decimal is '.'"),
        ({"thousands": "5"}, "thousands is '5'"),
        ({"thousands": "e"}, "thousands is 'e'"),
        ({"encoding": "hex"}, "encoding is 'hex', which is none"),
    ],
)
def test_a_notation_that_cannot_be(csv: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        settings(tmp_path / "t.csv", csv)


def test_no_error_shows_a_value(tmp_path: Path) -> None:
    """Of a row only the place is told."""
    for column in ([*["1"] * 58, "secret", "secret"], ["secret 1"] * ROWS):
        path = write(tmp_path / "t.csv", "x,secret,y", [*lines("{x},1,{y}", x=column), "secret,secret"])
        with pytest.raises(ProjectError) as error:
            read(path, drop=["secret"])
        assert "secret" not in str(error.value)
    path = write(tmp_path / "t.csv", "x,y", lines("{x},{y}", x=[*["1"] * 58, "secret", "secret"]))
    with pytest.raises(ProjectError) as error:
        read(path)
    assert "secret" not in str(error.value)


def test_a_quote_that_is_not_closed_in_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It swallows more than Arrow reads at once."""
    monkeypatch.setattr(csv_file, "BLOCK", 2000)
    rows = lines("{y},{a},{colour}") * 20
    path = write(tmp_path / "t.csv", "y,a,colour", rows)
    assert len(read(path)) == len(rows)
    write(path, "y,a,colour", [*rows[:30], 'yes,1,"red', *rows[31:]])
    with pytest.raises(ProjectError, match="the row that begins in line 32 is too long to be one: most likely a quote"):
        read(path)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(ProjectError, match=r"data\.path is .*t\.csv': not a readable csv table"):
        read(tmp_path / "t.csv")
