"""The design documents in docs/: what they ask, what people have answered, and what a machine can fill in."""
