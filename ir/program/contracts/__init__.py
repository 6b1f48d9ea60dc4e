"""The contracts that our passes record, one module a kind; a module is loaded where its contract is made or read."""
