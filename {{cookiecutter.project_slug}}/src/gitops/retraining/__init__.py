"""The pipeline, and candidates that retraining proposes."""
