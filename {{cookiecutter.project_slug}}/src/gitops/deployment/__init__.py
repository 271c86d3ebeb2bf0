"""Releases to an environment, promotions and rollbacks."""
