"""Speculative lengths are chosen from traces and measured costs."""
