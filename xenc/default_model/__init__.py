"""A small cross-encoder that comes with xenc, so that examples and tests need no model hub.

Not for production: README.md in this folder says how it was made and how well it ranks, and
docs/default_model/ makes it again.
"""

from pathlib import Path
from typing import Final

DEFAULT_MODEL: Final[str] = str(Path(__file__).parent)
"""The folder of the checkpoint: `CrossEncoder(DEFAULT_MODEL)` loads it, offline."""
