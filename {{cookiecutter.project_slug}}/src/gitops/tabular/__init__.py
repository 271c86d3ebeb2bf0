"""Tables: reading, typing, splitting, the schema, appending rows."""
