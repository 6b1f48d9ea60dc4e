"""A package of passes as somebody else would write it: nothing of ours knows of it."""
