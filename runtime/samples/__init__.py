"""Sample decoders are built here, for the command `demo` and for tests."""
