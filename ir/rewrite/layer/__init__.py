"""Cutting decoder layers out of a graph."""
