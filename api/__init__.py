"""Functions have the commands' names and options, take paths, programs or models in memory, and return types."""
