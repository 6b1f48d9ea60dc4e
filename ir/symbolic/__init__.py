"""Integers over named dimensions: expressions, equations, symbols."""
