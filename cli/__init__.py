"""The command line: one file a subcommand; it parses, calls the floors below, and shows what they return."""
