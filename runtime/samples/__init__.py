"""Sample decoders that the command can write."""
