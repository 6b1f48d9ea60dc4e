"""Sizes: lengths and families become bindings of symbols."""
