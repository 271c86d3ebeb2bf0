"""The report on a candidate, and its comment on the pull request."""
