"""Decoder layers are cut out of a graph here."""
