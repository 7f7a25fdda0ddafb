"""Pairs of texts -> token ids: what a pair is, how a tokenizer joins it, prompts."""
