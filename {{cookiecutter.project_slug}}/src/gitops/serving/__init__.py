"""The model archive, and the server that runs it."""
