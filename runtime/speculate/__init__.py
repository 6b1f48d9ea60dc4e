"""Speculative decoding is planned without a model: traces, policies and proposers."""
