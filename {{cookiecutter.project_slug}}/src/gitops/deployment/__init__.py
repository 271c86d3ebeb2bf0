"""Releases to an environment, promotions and rollbacks: commits on the branches `env/*`."""
