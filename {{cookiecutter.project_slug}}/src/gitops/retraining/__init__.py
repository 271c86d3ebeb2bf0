"""The pipeline, and retraining: new data, a candidate trained on it, and the pull request that proposes it."""
