"""The command line, `xenc COMMAND ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from ..errors import XencError
from . import profile

USAGE_ERROR: Final = 2
"""Exit status for wrong arguments or input."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command by its arguments (None for this process's).

    Returns:
        The exit status: 0, or USAGE_ERROR after one line on stderr.
    """
    parser = _Parser(prog="xenc", description="Cross-encoder inference.")
    profile.add_to(parser.add_subparsers(dest="command", required=True))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (XencError, OSError) as error:
        print(f"xenc {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    return 0
