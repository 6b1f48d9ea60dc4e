"""What a pipeline carries: graphs, clones and their description, loaded and saved."""
