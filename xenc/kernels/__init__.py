"""Operators of our own for processors: packed attention, linear layers; C++ sources and how they are built."""
