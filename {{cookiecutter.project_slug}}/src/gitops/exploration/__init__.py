"""`make explore`: a page of the table, before any model."""
