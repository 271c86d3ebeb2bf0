"""Point-in-time features for training, and online features for serving."""
