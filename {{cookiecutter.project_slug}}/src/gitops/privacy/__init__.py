"""Personal data: erase that of one person, or of one request, on request (GDPR, article 17)."""
