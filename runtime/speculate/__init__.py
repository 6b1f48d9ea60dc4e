"""Speculative decoding without a model: plans, policies, proposers."""
