"""Explanations of the model: which columns decide, and what the answer is over their values."""
