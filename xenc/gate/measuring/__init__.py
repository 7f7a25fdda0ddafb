"""Measuring: a test's subject -> rounds or blocks, and what is exact about them."""
