"""The graph's own grammar: scopes, values, constants, errors; it imports no other room."""
