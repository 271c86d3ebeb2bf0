"""Tables and settings that decide the splits in every way, and what version 63e514d of the template made of them.

A champion may have been trained on rows that another split would test it on: a project's splits never change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

TASKS = ("binary", "multiclass", "regression")


@dataclass(frozen=True)
class Case:
    """A table, the settings of its section `data`, and the rows at which it has grown."""

    frame: pd.DataFrame
    settings: dict[str, Any]
    appended: tuple[int, ...] = ()


def digest(rows: Any, splits: Any, groups: Any) -> str:
    """Return a digest of the number, the split (0, 1, 2: training, validation, test) and the group of rows."""
    columns = np.stack([np.asarray(rows, "<i8"), np.asarray(splits, "<i8"), np.asarray(groups, "<i8")])
    return hashlib.sha256(columns[:, np.argsort(columns[0])].tobytes()).hexdigest()[:16]


def case(seed: int) -> Case:
    """Return the case of this number: of each task, with and without ids, times, equal rows and appended rows."""
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([60, 300, 1000, 2500]))
    task = TASKS[seed % 3]
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=rows).round(int(rng.integers(1, 4))),
            "colour": rng.choice([*"abcdefghijkl"], rows),
            "flag": pd.array(rng.random(rows) < 0.5, dtype="boolean"),
            "since": pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 90, rows), unit="D"),
            "whole": rng.integers(-3, 4, rows),
        }
    )
    missing = rng.random(rows) < 0.1
    frame.loc[missing, ["x", "colour", "since"]] = None
    frame.loc[rng.random(rows) < 0.1, "flag"] = None
    copied = rng.random(rows) < rng.choice([0, 0.05, 0.3])
    if copied.any():
        frame.loc[copied, :] = frame.loc[rng.integers(0, rows, copied.sum())].to_numpy()
    frame = frame.astype({"flag": "boolean", "whole": "int64", "x": "float64"})
    if seed % 4 == 1:
        frame["colour"] = rng.permutation([f"{row:04}" for row in range(rows)])  # no two rows are equal
    level = frame["x"].fillna(0).to_numpy() + rng.normal(size=rows)
    names = ["rare", "low", "middle", "high", "größe"]
    classes = np.array(names)[np.digitize(level, [-2.6, -1, 1, 2.5])]
    frame["y"] = {"binary": np.where(level > 0.5, "yes", "no"), "multiclass": classes, "regression": level}[task]
    frame.loc[rng.random(rows) < rng.choice([0, 0.05]), "y"] = None
    if seed % 7 == 2 and task == "regression":
        frame["y"] = frame["y"].round(1)  # ties
    settings: dict[str, Any] = {"task": task, "duplicates": ["together", "drop", "keep"][seed // 3 % 3]}
    settings |= {"seed": seed, "max_categories": 5000}
    if seed % 5 < 2:
        people = rng.integers(0, rows // 3 + 1, rows) if seed % 2 else rng.integers(0, 50 * rows, rows)
        frame["person"] = np.where(rng.random(rows) < 0.05, None, people.astype(str).astype(object))
        settings["id"] = "person"
    if seed % 11 < 3:
        hours = rng.permutation(rows) if seed % 2 else rng.integers(0, rows // 2, rows)
        frame["at"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(hours, unit="h")
        settings |= {"timestamp": "at", "repeated_ids": "keep" if seed % 2 else "drop"}
    appended = tuple(sorted(rng.integers(1, rows, 4).tolist())) if seed % 3 == 1 or seed % 8 == 0 else ()
    return Case(frame, settings, appended)


#: By the number of the case: `digest` of its splits, or how the error begins.
GOLDEN: dict[int, str] = {
    0: "48b806f64874dd41",
    1: "e75bb44d75aa0b05",
    2: "f357207e2788d234",
    3: "4b7c421235ccddad",
    4: "bc94edcbaa154a72",
    5: "d1335d65f0aa905b",
    6: "0ecaf168251d65ce",
    7: "e34753636d60b7e0",
    8: "64b6001503eb00d9",
    9: "f298a4b052328818",
    10: "3737e3703d7d514b",
    11: "ea526d6f9dbd90e3",
    12: "84fac23126c09eb7",
    13: "031a459967fd3148",
    14: "6c343c139ae94ed9",
    15: "941da2b13c2549d4",
    16: "919869a69766df52",
    17: "00a1f603115cff4b",
    18: "753f1b43446fe173",
    19: "abc7bffa82b19e00",
    20: "518f1c6561d1985f",
    21: "783cdf82912705bc",
    22: "60d2a75b7160be42",
    23: "0698f2c226ddd6b4",
    24: "ad8f7d4c2f6d37ea",
    25: "6eb8e864285243be",
    26: "af81be1e5de13d6b",
    27: "6f1fe1f9b89090da",
    28: "b0e163c6e80024ec",
    29: "83d7a0051ac5602f",
    30: "68d3342bc9815f4c",
    31: "fef5a8fcc201ef21",
    32: "3ed4515fbbdbd37e",
    33: "73613ed2dd286565",
    34: "d1c2d0c08f7a4908",
    35: "7f1c9a5a44eb0047",
    36: "d5f719f1d00cf75b",
    37: "9a8efea343ad1e8a",
    38: "012d2ce1e38ebd92",
    39: "420bba283456b35e",
    40: "af1185e5cd562bf0",
    41: "821daff8fbed5f33",
    42: "23dfd56cd41ae26f",
    43: "a6eaafa3e81230fb",
    44: "19bb68cf5827be80",
    45: "8558a19062e86a46",
    46: "b3d6aff415e2e05a",
    47: "388f605ebde84223",
    48: "b2caad40a97078bb",
    49: "2033953d7ad64990",
    50: "20c9e71bbd42b8cc",
    51: "a9dcc9ed8e68f02e",
    52: "75e1e17e57402505",
    53: "0335f3ed03b7f6bc",
    54: "7b604e6d7c450145",
    55: "373 of the 1562 rows of the train split are with features that a later split has",
    56: "8b339b10aeb9cd2e",
    57: "045eb014b959313a",
    58: "892dbdc78f6b0a1f",
    59: "ab1ad6ad9e38525e",
    60: "27b6f48fefe3f848",
    61: "b9c9c09e926579a2",
    62: "fc6a2921f383f042",
    63: "15b54a6d2609c6a0",
    64: "d3ff033e3212ba07",
    65: "7525b6d02e761a16",
    66: "0b0d825b581407d5",
    67: "3758c1dc17e18724",
    68: "9bf39c2d368cea0f",
    69: "be48de18fa218a5e",
    70: "ca8a856bb1e83236",
    71: "dbd3cb6a5528ad0d",
    72: "6b13f45aba9658f7",
    73: "4ee2102c827e3e90",
    74: "26c4947649186bef",
    75: "9a76b0cc0b77a69d",
    76: "b9652f0ed07ff09b",
    77: "ace03458c543f6a8",
    78: "8dc1e8e73d2d8455",
    79: "classes ['rare'] of data.target 'y' appear only after the training period: leave",
    80: "e83769230a7181bd",
    81: "893bccc52855dd69",
    82: "23c1db77acd5afa3",
    83: "d5d58cf2ac1acfac",
    84: "5be475226e509ae0",
    85: "7175629a6429567a",
    86: "17b4fccd2eaaffc3",
    87: "f4f68c8d093ff7f8",
    88: "34b422897d1f2b5d",
    89: "4daa4a0e7a0e638d",
    90: "6fcaaff521fcc575",
    91: "96644feed8e9bdc6",
    92: "1c00f6fc83e1e8fb",
    93: "5594fc79b82b1c6b",
    94: "3483020c28f57f40",
    95: "b14411e4e5ede064",
    96: "80d0922ae254bfdc",
    97: "43741b6809deb9e7",
    98: "1fd1d8434b4c9810",
    99: "7eb8e20f47a61132",
    100: "be87ac8afe142361",
    101: "0c60dd13153fcadc",
    102: "ab7c33aef4564c15",
    103: "964143df0042d20a",
    104: "d6565a1f7dec0739",
    105: "ea939dc511a3f61e",
    106: "e9c1cfb1c32c995c",
    107: "06d08e3d35830825",
    108: "7c8c16dc5c1c4e3e",
    109: "189c7c03a5586179",
    110: "fbad679c291c2cc5",
    111: "608ce39eb7b452c5",
    112: "09fe0b0a4773dae3",
    113: "c44174d8737004a0",
    114: "1412d2259d2f44df",
    115: "c95ecd26dcb775bb",
    116: "24c29b6617aed3e0",
    117: "ab2649df802dd4be",
    118: "ae1b298666d20c45",
    119: "1bf46e960a30dbbf",
}
