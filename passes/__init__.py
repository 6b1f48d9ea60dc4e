"""Passes: one transformation a file, and the machinery that reads, orders, runs and watches them."""
