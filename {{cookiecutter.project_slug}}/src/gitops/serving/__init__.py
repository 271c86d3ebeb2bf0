"""The model archive, and the server that answers with it."""
