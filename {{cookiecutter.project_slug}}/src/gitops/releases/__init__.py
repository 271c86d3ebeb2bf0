"""The release record on `env/*` and its history."""
