"""Each file is one subcommand: it parses, calls the floors below, and shows what they return."""
