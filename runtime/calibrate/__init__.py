"""Watching ranges while texts run, and choosing grids from them."""
