"""Texts run through a graph while ranges are watched, and grids are chosen from them."""
