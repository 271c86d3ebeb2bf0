"""Numbers that order the rows in the same way, so that a model learns little from a second one."""

from __future__ import annotations

from gitops.exploration.tables import Split
from gitops.statistics import rank_correlation
from gitops.statistics.rank_correlation import ROWS as ROWS
from gitops.statistics.rank_correlation import SAME as SAME


def groups(split: Split, numbers: list[str]) -> list[list[str]]:
    """Return groups of columns whose rank correlation with the first of the group, in a sample, is SAME or more."""
    return rank_correlation.groups(split.sample(numbers, ROWS)) if len(numbers) > 1 else []
