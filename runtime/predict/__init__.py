"""Single-shot programs run over texts: tokenized, put into batches of like lengths, padded to what is compiled."""
