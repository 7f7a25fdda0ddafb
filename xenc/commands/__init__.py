"""The command line. A module for each command adds its options and runs it."""

from .command_line import main

__all__ = ["main"]
