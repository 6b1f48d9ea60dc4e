"""Graphs of several lengths are packed into the branches of one."""
