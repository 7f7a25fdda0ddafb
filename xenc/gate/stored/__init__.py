"""Judging by a stored baseline: rounds -> entries -> baseline -> verdict."""
