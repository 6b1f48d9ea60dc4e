"""Each file is one transformation, or a part of the machinery that reads, orders, runs and watches them."""
