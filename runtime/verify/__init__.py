"""Comparing a result with its original by running both."""
