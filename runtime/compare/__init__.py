"""Measuring how far two programs are apart."""
