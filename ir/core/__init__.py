"""The graph's own grammar: scopes, values, constants and errors are defined here, and no other room is imported."""
