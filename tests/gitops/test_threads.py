"""How many threads a stage computes with: one for a small table, unless the user has said so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gitops.core import threads


@pytest.fixture(autouse=True)
def _two() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("size", "variable", "expected"),
    [(threads.SMALL, None, 1), (threads.SMALL + 1, None, 2), (0, "2", 2), (None, None, 1)],
)
def test_a_small_table_takes_one_thread(
    size: int | None, variable: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    if size is not None:
        with (tmp_path / "train.parquet").open("wb") as file:
            file.truncate(size)
    threads.limit(tmp_path / "train.parquet")
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(
    ("size", "processes", "expected"), [(threads.SMALL, 2, 1), (threads.SMALL + 1, 2, 4), (threads.SMALL + 1, 16, 1)]
)
def test_processes_share_the_cores(
    size: int, processes: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(8)}, raising=False)
    with (tmp_path / "train.parquet").open("wb") as file:
        file.truncate(size)
    assert threads.share(tmp_path / "train.parquet", processes) == expected
