"""Taking a state out of a graph: when that is exact, and how it is done."""
