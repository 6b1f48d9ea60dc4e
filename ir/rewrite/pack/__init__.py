"""Packing graphs of several lengths into the branches of one."""
