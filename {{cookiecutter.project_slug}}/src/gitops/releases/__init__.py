"""The release record, the branches that hold it, and their history."""
