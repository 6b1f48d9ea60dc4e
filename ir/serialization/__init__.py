"""Files: they are read, checked and written atomically here."""
