"""`python -m xenc`: the same as the command `xenc`."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
