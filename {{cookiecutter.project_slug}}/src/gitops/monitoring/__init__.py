"""Drift, data quality and performance in production."""
