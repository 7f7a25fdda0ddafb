"""Padded, packed and after a shared prefix: the stages of an execution for a model."""
