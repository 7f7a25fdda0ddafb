"""Operators of our own for processors: packed attention and linear layers, in C++, and how they are built."""
