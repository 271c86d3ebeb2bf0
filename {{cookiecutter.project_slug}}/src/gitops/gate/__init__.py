"""Whether a candidate may replace the release."""
