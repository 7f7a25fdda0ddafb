"""Which command runs, and what becomes of its errors."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, NoReturn

from transformers.utils.logging import disable_progress_bar

from ..errors import XencError, first_line
from . import bench, doctor, profile, rank, score
from .signals import number_of, signals_raised

COMMANDS: Final = {"score": score, "rank": rank, "bench": bench, "profile": profile, "doctor": doctor}
"""Each runs by its options, and may return an exit status of its own."""

FAILED: Final = 1
USAGE_ERROR: Final = 2
STOPPED: Final = 128
"""Plus the signal's number."""

_STATUSES: Final = f"""\
exit status:
  0    done
  {FAILED}    an error that was not expected; --debug shows where. Of xenc doctor: something is to be mended
  {USAGE_ERROR}    wrong arguments, a file, a record or a model that cannot be used
  130  stopped by Ctrl-C; 143 by SIGTERM
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command by its arguments (None for this process's).

    Returns:
        The exit status: 0, or another after one line on stderr.
    """
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        what = f"unrecognized arguments: {' '.join(unknown)}; see xenc {options.command} --help"
        return _said(options, what, USAGE_ERROR)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of the weights, which would stand in every log
    try:
        with signals_raised():
            status = COMMANDS[options.command].run(options)
    except KeyboardInterrupt as error:
        number = number_of(error)
        return _said(options, f"stopped by {signal.Signals(number).name}", STOPPED + number)
    except BrokenPipeError:
        sys.stdout = None  # who read it has gone: nothing is left to be flushed
        return STOPPED + signal.SIGPIPE
    except Exception as error:
        if options.debug:
            raise
        if isinstance(error, (XencError, OSError)):
            return _said(options, str(error), USAGE_ERROR)
        return _said(options, f"{type(error).__name__}: {first_line(error)} (--debug shows where)", FAILED)
    return status or 0


def _parser() -> _Parser:
    parser = _Parser(
        prog="xenc", description="Score pairs of texts with a cross-encoder (reranker).", epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"xenc {version('xenc')}")
    commands: Any = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name, help=module.WHAT, description=module.WHAT, epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_options(command)
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _said(options: argparse.Namespace, what: str, status: int) -> int:
    print(f"xenc {options.command}: {' '.join(what.split())}", file=sys.stderr)
    return status
