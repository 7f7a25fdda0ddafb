"""Causal rerankers: what all pairs of a request begin with, computed once."""
