"""Choosing speculative lengths from traces and measured costs."""
