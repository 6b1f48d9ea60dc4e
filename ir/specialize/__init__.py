"""Lengths and families of models become bindings of symbols to sizes."""
