"""CSV files as people have them come out right: each case has its right values, and all that reads a file agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_table
from gitops.core.artifacts import ProjectError
from gitops.tabular import csv_rows, load, table
from table_cases import ROWS, A, assert_values, comma, dtypes, lines, read, settings, write


def test_a_bom_and_windows_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,colour,y", lines("{a},{colour},{y}"), "utf-8-sig", "\r\n")
    assert_values(read(path))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "latin-1", "utf-8"])
def test_an_encoding_that_is_set(encoding: str, tmp_path: Path) -> None:
    rows = lines("{a},{colour},{y},ü{row}")
    frame = read(write(tmp_path / "t.csv", "a,colour,y,größe", rows, encoding), {"encoding": encoding})
    assert_values(frame)
    assert frame["größe"].tolist() == [f"ü{row}" for row in range(ROWS)]


def test_a_mark_of_utf_8_counts_for_more_than_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,colour,y,é", lines("{a},{colour},{y},é"), "utf-8-sig")
    assert set(read(path, {"encoding": "cp1252"})["é"]) == {"é"}


def test_semicolons_and_decimal_commas_in_cp1252(tmp_path: Path) -> None:
    rows = lines("{comma};{colour};{y}", comma=[comma(number) for number in A])
    path = write(tmp_path / "t.csv", "größe;colour;y", rows, "cp1252")
    frame = read(path, {"delimiter": ";", "decimal": ",", "encoding": "cp1252"}).rename(columns={"größe": "a"})
    assert_values(frame)


def test_thousands_separators_that_are_set(tmp_path: Path) -> None:
    prices = [f"{number:,}" for number in range(638, 638 + 61 * ROWS, 61)]
    frame = read(write(tmp_path / "t.csv", "price,y", lines('"{price}",{y}', price=prices)), {"thousands": ","})
    assert frame["price"].tolist() == [*range(638, 638 + 61 * ROWS, 61)]
    german = [f"{number:,}".replace(",", ".") + ",5" for number in range(638, 638 + 61 * ROWS, 61)]
    path = write(tmp_path / "t.csv", "price;y", lines("{price};{y}", price=german))
    frame = read(path, {"delimiter": ";", "decimal": ",", "thousands": "."})
    assert frame["price"].tolist() == [number + 0.5 for number in range(638, 638 + 61 * ROWS, 61)]


def test_numbers_in_another_notation_than_is_set_are_none(tmp_path: Path) -> None:
    """A point is no decimal sign where the comma is, and digits are grouped in threes."""
    for text, column in (("1.5", "1.5"), ("12,34", "1,234")):
        cells = {"delimiter": ";", "decimal": "," if "." in text else ".", "thousands": None if "." in text else ","}
        rows = lines("{x};{y}", x=[text, column] * (ROWS // 2))
        with pytest.raises(ProjectError, match=r"column 'x' .* written otherwise than data\.csv says"):
            read(write(tmp_path / "t.csv", "x;y", rows), cells)


def test_codes_with_leading_zeros_and_ids_with_many_digits(tmp_path: Path) -> None:
    """A code is a category without a setting, an id keeps each digit."""
    ids, codes = [90_071_992_547_409_900 + row for row in range(ROWS)], [f"{row * 3:05}" for row in range(ROWS)]
    path = write(tmp_path / "t.csv", "customer,zip,a,y", lines("{id},{zip},{a},{y}", id=ids, zip=codes))
    frame = read(path, id="customer")
    assert dtypes(frame) == {"customer": "category", "zip": "category", "a": "number", "y": "category"}
    assert frame["customer"].tolist() == [str(number) for number in ids]
    assert frame["zip"].tolist() == codes
    zeros = write(tmp_path / "t.csv", "x,y", lines("{x},{y}", x=[0, 0.5] * (ROWS // 2)))
    assert dtypes(read(zeros))["x"] == "number", "a zero alone is no code"


def test_an_index_without_a_name_can_be_left_out(tmp_path: Path) -> None:
    for name in ("", "Unnamed: 0"):
        path = write(tmp_path / "t.csv", f"{name},a,colour,y", lines("{row},{a},{colour},{y}"))
        frame = read(path, drop=[name])
        assert_values(frame)
        assert [*frame.columns] == ["a", "colour", "y"]


def test_a_repeated_name_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,x,colour,x,y", lines("{a},1,{colour},2,{y}"))
    frame = read(path, drop=["x"])
    assert_values(frame)


@pytest.mark.parametrize("name", ["split", "count", "row", "prediction", "model_version", "target", "index"])
def test_columns_with_names_of_the_code(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", f"a,{name},colour,y", lines("{a},{row},{colour},{y}"))
    frame = read(path)
    assert_values(frame)
    assert frame[name].tolist() == [*range(ROWS)]


def test_a_class_called_none(tmp_path: Path) -> None:
    """Without a setting it is an error; with an empty list a class; with its name a missing target."""
    classes = ["None", "Insomnia", "None", "Apnea"] * (ROWS // 4)
    path = write(tmp_path / "t.csv", "a,y", lines("{a},{y}", y=classes))
    with pytest.raises(ProjectError) as error:
        read(path, task="multiclass")
    assert str(error.value) == (
        f"data.target 'y' of {path} is a text of data.missing ('None') in 30 rows, the first is line 2: set "
        "data.missing_target to ['None'] if such rows have no target and are to be left out, or to [] if it is a class"
    )
    for markers in ([], [""]):
        assert read(path, task="multiclass", missing_target=markers)["y"].tolist() == classes
    found = read(path, task="multiclass", missing_target=["None"], max_lost=0.5)
    assert found["y"].isna().sum() == ROWS / 2


def test_rows_without_a_target_beyond_the_limit(tmp_path: Path) -> None:
    """A fifth of the rows lost is an error, fewer are counted."""
    classes = [*[""] * 13, *["yes", "no"] * 24]
    path = write(tmp_path / "t.csv", "a,y", lines("{a},{y}", y=classes[:ROWS]))
    with pytest.raises(ProjectError) as error:
        read(path)
    assert str(error.value) == (
        f"data.target 'y' of {path} is missing in 13 rows, the first is line 2, which is 22% of 60, more than "
        "data.max_lost (0.2): correct data.target or the table, or raise the limit"
    )
    _, schema = small_table.prepared(settings(path, max_lost=0.25))
    assert schema["rows"]["dropped_missing_target"] == 13
    number = write(tmp_path / "t.csv", "a,y", lines("{a},{y}", y=[*["?"] * 13, *range(47)]))
    with pytest.raises(ProjectError, match="missing in 13 rows, the first is line 2"):
        read(number, task="regression")


def test_spaces_before_quotes(tmp_path: Path) -> None:
    """Arrow reads such a quote as text; the rows are the same as without the spaces."""
    rows = [line.replace("|", '"') for line in lines("{a},  |{colour}|, |{y}|")]
    assert_values(read(write(tmp_path / "t.csv", "a, colour, y", rows)))
    rows = [line.replace("|", '"') for line in lines("{a}, |dark, {colour}|, |said ||{y}|||")]
    frame = read(write(tmp_path / "t.csv", "a,colour,y", rows, "utf-16"), {"encoding": "utf-16"})
    assert frame["colour"].tolist()[0] == "dark, green" and frame["y"].tolist()[0] == 'said "yes"'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_empty_lines(end: str, tmp_path: Path) -> None:
    rows = [line + end for line in lines("{a},{colour},{y}")]
    assert_values(read(write(tmp_path / "t.csv", "a,colour,y", rows, end=end)))


def test_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a\tcolour\ty", lines("{a}\t{colour}\t{y}"))
    assert_values(read(path, {"delimiter": "\t"}))


def test_the_line_of_a_row_counts_quoted_lines_and_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,"y\nz"\n\n1,"two\nlines"\n2,x\n\n\n3,x\n')
    assert [csv_rows.line(path, settings(path).csv, row) for row in range(3)] == [4, 6, 9]
    assert csv_rows.header(path, settings(path).csv) == ["a", "y\nz"]


def test_dates_of_every_year(tmp_path: Path) -> None:
    """Before 1677 and after 2262, with and without a zone, with fractions; read in every environment alike."""
    texts = ["0001-01-01", "1066-10-14T09:00:00Z", "3000-01-01 12:30", "9999-12-31T23:59:59.999999+00:00", ""]
    path = write(tmp_path / "t.csv", "a,day,y", lines("{a},{day},{y}", day=texts * (ROWS // 5)))
    splits, schema = small_table.prepared(settings(path))
    feature = next(feature for feature in schema["features"] if feature["name"] == "day")
    assert (feature["dtype"], feature["min"], feature["max"]) == (
        "datetime",
        "0001-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59.999999+00:00",
    )
    splits["train"].to_parquet(tmp_path / "train.parquet")
    again = pd.read_parquet(tmp_path / "train.parquet")
    assert again["day"].dtype == "datetime64[us, UTC]" and again["day"].equals(splits["train"]["day"])
    fine = write(tmp_path / "t.csv", "a,day,y", lines("{a},2024-01-01T00:00:00.123456789,{y}"))
    assert read(fine)["day"].iloc[0] == pd.Timestamp("2024-01-01T00:00:00.123456Z")


def test_numbers_of_every_form(tmp_path: Path) -> None:
    texts = ["1", "+3", "1.", "-.5", " 2e3 ", "?"]
    path = write(tmp_path / "t.csv", "x,y", lines("{x},{y}", x=texts * (ROWS // 6)))
    assert np.array_equal(read(path)["x"][:6], [1, 3, 1, -0.5, 2000, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [
        ["A1", "B2", "A3"],
        ["2WD", "4WD", "2WD"],
        ["18-24", "25-34", "65+"],
        ["12:30", "08:15", "23:59"],
        ["a,b", "c,d", "e"],
    ],
)
def test_categories_that_look_a_little_like_numbers(values: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "x,y", lines('"{x}",{y}', x=values * (ROWS // 3)))
    assert dtypes(read(path))["x"] == "category"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1.234,5", "638"], "set data.csv.decimal to ',' and data.csv.thousands to '.'"),
        (["1,192", "638"], "set data.csv.thousands to ',' or data.csv.decimal to ','"),
        (["0,576", "-1,192"], "set data.csv.decimal to ','"),
        (["1.192.000", "638"], "and data.csv.thousands to '.'"),
        (["1'192.5", "638"], 'set data.csv.thousands to "\'"'),
        (["1 192", "638"], "set data.csv.thousands to ' '"),
        (["1\u202f192", "638"], "set data.csv.thousands to '\\u202f'"),
        (["88.7 m²", "159.6 m²"], "write the numbers without their unit"),
        (["12 %", "7 %"], "write the numbers without their unit"),
        (["$12", "$1,200"], "write the numbers without their unit"),
        (["1 kg", "2 kg", "3.5 kg", "4 kg", "5 kg", "6 kg"], "write the numbers without their unit"),
    ],
)
def test_numbers_that_would_become_categories(values: list[Any], message: str, tmp_path: Path) -> None:
    """The error names the column, the rows, the first line and what to set or change."""
    texts = (values * ROWS)[:ROWS]
    path = write(tmp_path / "t.csv", "x,y", lines('"{x}",{y}', x=texts))
    with pytest.raises(ProjectError) as error:
        read(path)
    assert f"column 'x' of {path} holds numbers that are written otherwise than data.csv says in " in str(error.value)
    assert "the first is line " in str(error.value) and message in str(error.value)
    assert read(path, categorical=["x"])["x"].tolist() == texts


def test_a_table_in_several_files_of_csv(tmp_path: Path) -> None:
    """Its dtypes are those of all rows; a line is that of the file in which it is."""
    rows = lines("{a},{colour},{y}")
    paths = [
        write(tmp_path / "t.csv", "a,colour,y", rows[:50]),
        write(tmp_path / "more.csv", "a, colour ,y", rows[50:]),
    ]
    data = settings(paths[0])
    assert_values(table.typed(load.files([*map(str, paths)], "data.path", data), data))
    write(paths[1], "a,colour,y", [*rows[50:57], "inf,red,no", *rows[57:]])
    with pytest.raises(
        ProjectError, match=rf"column 'a' of {paths[0]} is infinite in 1 rows, .* line 9 of {paths[1]}:"
    ):
        table.typed(load.files([*map(str, paths)], "data.path", data), data)
    write(paths[1], "a,color,y", rows[50:])
    with pytest.raises(ProjectError, match=rf"data.path is '{paths[0]}': {paths[1]} has other columns"):
        load.files([*map(str, paths)], "data.path", data)
    with pytest.raises(ProjectError, match=r"none\.csv': there is no such file"):
        load.files([str(paths[0]), "none.csv"], "data.path", data)
