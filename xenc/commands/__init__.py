"""The command line, `xenc COMMAND ...`: one module for each command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from ..errors import XencError
from . import profile

COMMANDS: Final = (profile,)
"""Each adds its own parser, whose `run` does the work."""

USAGE_ERROR: Final = 2
"""Exit status for what was asked wrongly."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; None for those of this process.

    Returns:
        The exit status: 0, or USAGE_ERROR after one line on stderr.
    """
    parser = _Parser(prog="xenc", description="Cross-encoder inference.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (XencError, OSError) as error:
        print(f"xenc {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    return 0
