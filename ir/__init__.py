"""What a program is: graphs, states, symbols, roles, weights. Only `ir/rewrite` edits; nothing above is imported."""
