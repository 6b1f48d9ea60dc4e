"""What speculation gains: measured costs, proposals replayed on local text, every policy beside plain decoding."""
