"""predict is measured against the loop of embedding libraries: batches of 32 and vectors pooled in numpy."""
