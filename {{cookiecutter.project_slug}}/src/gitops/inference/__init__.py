"""Batch inference: predictions for whole tables."""
