"""Rows of a split that is read as it is needed: each once an epoch, in another order, for any number of processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from gitops.core import artifacts
from gitops.training import epochs, load, processes
from gitops.training.rows import Batch, InMemory, Rows, Step
from gitops.training.streamed import Streamed

ROWS, GROUP = 1000, 30
CPU = torch.device("cpu")


def encode(frame: pd.DataFrame) -> Batch:
    """The row's number is its only number and its target."""
    numbers = torch.from_numpy(frame[["number"]].to_numpy())
    return Batch(numbers, torch.empty((len(frame), 0), dtype=torch.int64), numbers[:, 0].long())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A split of ROWS rows in row groups of GROUP, the last of which is smaller."""
    frame = pd.DataFrame({"number": np.arange(ROWS, dtype="float64"), artifacts.GROUP: np.arange(ROWS) // 3})
    frame.to_parquet(tmp_path / "train.parquet", row_group_size=GROUP)
    return tmp_path / "train.parquet"


@pytest.fixture
def streamed(file: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.setattr(load, "MEMORY", 2 * ROWS * load.VALUE - 1)
    return load.rows(file, ["number"], encode, 2, CPU)


def numbers(steps: Iterator[Step]) -> list[list[int]]:
    """Return the rows of each step, in their order."""
    return [step.batch.target.tolist() for step in steps]


def flat(lists: Iterable[list[int]]) -> list[int]:
    """Return the elements of all lists."""
    return [*chain.from_iterable(lists)]


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "world", lambda: world)


def test_a_split_is_held_in_memory_if_it_fits(file: Path, streamed: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MEMORY", 2 * ROWS * load.VALUE)
    held = load.rows(file, ["number"], encode, 2, CPU)
    assert isinstance(held, InMemory) and isinstance(streamed, Streamed)
    assert len(held) == len(streamed) == ROWS
    assert torch.equal(held.target, streamed.target) and held.groups.tolist() == streamed.groups.tolist()
    for one, other in zip(held.parts(GROUP), streamed.parts(GROUP), strict=True):
        assert torch.equal(one.numbers, other.numbers)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 999, 5000])
def test_an_epoch_has_each_row_once(streamed: Rows, batch_size: int) -> None:
    batches = numbers(streamed.steps(batch_size, seed=1))
    assert sorted(flat(batches)) == list(range(ROWS))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert len(batches) == -(-ROWS // batch_size)


def test_a_batch_mixes_places_of_the_file_and_each_epoch_others(streamed: Rows) -> None:
    batches = numbers(streamed.steps(64, seed=1))
    assert batches == numbers(streamed.steps(64, seed=1))
    assert not {*map(frozenset, batches)} & {*map(frozenset, numbers(streamed.steps(64, seed=2)))}
    for batch in batches[:-1]:
        assert len({row // GROUP for row in batch}) >= 8
        assert abs(np.mean(batch) - ROWS / 2) < ROWS / 4
        assert abs(np.corrcoef(batch[:-1], batch[1:])[0, 1]) < 0.9


@pytest.mark.parametrize("world", [2, 3, 4, 8])
def test_processes_share_the_batches_of_one(streamed: Rows, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbers(streamed.steps(64, seed=1))
    shares = []
    for rank in range(world):
        as_process(monkeypatch, rank, world)
        steps = [*streamed.steps(64, seed=1)]
        assert [step.rows for step in steps] == [len(batch) / world for batch in whole]
        shares.append(numbers(iter(steps)))
    together = [sorted(flat(parts)) for parts in zip(*shares, strict=True)]
    if world != 3:  # has a ninth lane
        assert together == [sorted(batch) for batch in whole]
    assert sorted(flat(together)) == list(range(ROWS))
    assert max(map(len, shares[0])) <= -(-64 // world) + 8 // world + 1


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_in_memory(file: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = load.rows(file, ["number"], encode, 2, CPU)
    shares = []
    for rank in range(world):
        as_process(monkeypatch, rank, world)
        torch.manual_seed(0)
        shares.append(numbers(held.steps(64, seed=1)))
    as_process(monkeypatch, 0, 1)
    torch.manual_seed(0)
    whole = numbers(held.steps(64, seed=1))
    assert [sorted(flat(parts)) for parts in zip(*shares, strict=True)] == [*map(sorted, whole)]


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_is_taken_up_at_a_step_without_reading_what_is_past(
    streamed: Rows, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_process(monkeypatch, world - 1, world)
    whole = numbers(streamed.steps(10, seed=1))
    read: list[int] = []
    original = Streamed._read

    def counted(self: Streamed, pieces: Any) -> Batch:
        read.append(sum(piece.stop - piece.start for piece in pieces))
        return original(self, pieces)

    monkeypatch.setattr(Streamed, "_read", counted)
    for first in (0, 1, 50, 99):
        read.clear()
        assert numbers(streamed.steps(10, 1, first)) == whole[first:]
        left = sum(map(len, whole[first:]))
        assert left <= sum(read) <= left + 8 // world * 2 * GROUP


@pytest.mark.parametrize("world", [1, 3])
def test_processes_share_what_is_scored(streamed: Rows, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    for rank in range(world):
        as_process(monkeypatch, rank, world)
        parts = [part.target.tolist() for part in streamed.parts(8, shared=True)]
        assert max(map(len, parts)) == 8
        found += flat(parts)
        assert flat(part.target.tolist() for part in streamed.parts(500)) == list(range(ROWS))
    assert sorted(found) == list(range(ROWS))


def test_chosen_rows_are_the_same_streamed_and_in_memory(
    file: Path, streamed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "MEMORY", 1 << 30)
    held = load.rows(file, ["number"], encode, 2, CPU)
    mask = np.arange(ROWS) % 7 > 2
    mask[GROUP : 3 * GROUP] = False  # two row groups without any
    for one, other in ((held, streamed), (held.chosen(mask), streamed.chosen(mask))):
        again = np.arange(len(one)) % 2 == 0
        for left, right in ((one, other), (one.chosen(again), other.chosen(again))):
            assert len(left) == len(right)
            assert left.target.tolist() == right.target.tolist() == sorted(flat(numbers(right.steps(64, seed=1))))
            assert left.groups.tolist() == right.groups.tolist()


def test_blocks_of_an_epoch_are_seeded_by_their_place_and_process(
    streamed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "BLOCK", 300)

    def drawn(rank: int, number: int, first: int = 0) -> list[tuple[int, int]]:
        """Return the steps of each block and a random number in it."""
        as_process(monkeypatch, rank, 2)
        blocks = epochs.epoch(streamed, 100, 42, number, first)
        return [(len([*steps]), int(torch.randint(1 << 40, ()))) for steps in blocks]

    whole = drawn(0, 1)
    assert [steps for steps, _ in whole] == [3, 3, 3, 1] and epochs.blocks(streamed, 100) == 4
    assert drawn(0, 1, first=2) == whole[2:]
    seen = [number for rank in range(2) for epoch in (1, 2) for _, number in drawn(rank, epoch)]
    assert len({*seen}) == len(seen) == 16
    torch.manual_seed(42 + 1)
    assert int(torch.randint(1 << 40, ())) == whole[0][1]


#: Prints by how many MiB the peak of memory grows while an epoch over a file of COLUMNS columns is read.
READING = """
import sys
import torch
from pathlib import Path
from gitops.training import load
from gitops.training.rows import Batch

sys.path.insert(0, sys.argv[2])
from peak_memory import peak

columns = [f"number{index}" for index in range(30)]

def encode(frame):
    numbers = torch.from_numpy(frame[columns].to_numpy())
    return Batch(numbers, torch.empty((len(frame), 0), dtype=torch.int64), numbers[:, 0].float())

load.MEMORY = 1 << 20
rows = load.rows(Path(sys.argv[1]), columns, encode, 31, torch.device("cpu"))
before = peak()
seen = sum(len(step.batch.target) for step in rows.steps(4096, seed=1))
assert seen == len(rows), seen
print((peak() - before) / 2**20)
"""


def test_memory_is_flat_and_below_the_splits_size(tmp_path: Path) -> None:
    """Ten times the rows: 24 and 240 MB of numbers in row groups of 1.2 MB."""
    peaks = []
    for rows in (100_000, 1_000_000):
        path = tmp_path / f"{rows}.parquet"
        column = np.random.default_rng(0).random(rows)
        table = pa.table({f"number{index}": column for index in range(30)})
        pq.write_table(table, path, row_group_size=5_000, compression="none", use_dictionary=False)
        command = [sys.executable, "-c", READING, path, Path(__file__).parent]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < 160, peaks
    assert peaks[1] < peaks[0] + 40, peaks
