"""A state is taken out of a graph here, where that is exact."""
