"""Deepchecks: running the checks that the project chooses, and what their results mean."""

import os
import sys

# Deepchecks' import would call home and write into its own folder.
os.environ["DISABLE_DEEPCHECKS_ANONYMOUS_TELEMETRY"] = "1"

# It imports nbformat, which imports jsonschema, which compiles a grammar of addresses where this package is installed:
# a third of Deepchecks' start, for a check of notebooks that nothing here makes. Without the package it does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
