"""The pull request's report and its comment."""
