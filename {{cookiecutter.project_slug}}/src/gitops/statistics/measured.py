"""Measured coverage of the 95 % intervals, written by the template's benchmarks/statistics.py."""

from __future__ import annotations

#: A line for each kind of test rows: the task, how errors are distributed (regression), the number of rows, of groups
#: and of rows of the rarest class (not for regression), the repetitions, and the fraction that held the true value of
#: each metric.
MEASURED = """
"""
