"""Technical debt: what is looked up of it, and scored."""
