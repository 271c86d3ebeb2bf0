"""Deepchecks: running the checks that the project chooses, and what their results mean."""

import os

# Deepchecks' import would call home and write into its own folder.
os.environ["DISABLE_DEEPCHECKS_ANONYMOUS_TELEMETRY"] = "1"
