"""Integers over named dimensions are added, compared and solved here."""
