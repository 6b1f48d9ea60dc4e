"""Files are read, checked and written atomically here."""
