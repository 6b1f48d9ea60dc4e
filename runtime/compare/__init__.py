"""Two programs are measured apart: numbers by layer, probabilities, texts."""
