"""A program is what a pipeline carries: graphs, clones, contracts and their description, loaded and saved."""
