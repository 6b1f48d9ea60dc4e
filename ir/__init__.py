"""What a program is: graphs, states, symbols, roles, weights; changes nothing and imports nothing above itself."""
