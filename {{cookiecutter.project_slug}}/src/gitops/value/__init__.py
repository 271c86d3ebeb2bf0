"""What decisions are worth: the model's, and those that are made without it."""
