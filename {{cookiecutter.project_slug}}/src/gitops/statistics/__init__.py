"""Statistics of what is measured on rows: resamples by group, intervals, how often these hold."""
