"""What each input, output and dimension of a graph means."""
