"""This room finds what each input, output and dimension of a graph means, once for each version of the graph."""
