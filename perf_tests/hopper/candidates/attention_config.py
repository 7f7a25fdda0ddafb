"""How to launch the kernel of triton_attention.py; this needs no Triton."""

from typing import NamedTuple


class Config(NamedTuple):
    """How to launch the kernel.

    Attributes:
        block_m: queries of a program.
        block_n: keys of a step; every default has the same, so that bits do not depend on `max_seqlen`.
        num_warps, num_stages: as Triton has them; a stage is a block of keys and values in shared memory.
        peel: whether full blocks of keys have a loop without masks.
        search: whether there is a program per block of tokens, which searches for its document. Otherwise
            there is a program per block of `max_seqlen` tokens of every slot, most of which may be idle.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    peel: bool = True
    search: bool = False


CONFIGS: tuple[Config, ...] = (
    Config(64, 64, 4, 2),
    Config(64, 64, 4, 2, search=True),
    Config(64, 64, 4, 3, search=True),
    Config(64, 64, 4, 2, peel=False, search=True),
    Config(128, 64, 8, 2, search=True),
    Config(128, 64, 8, 3, search=True),
    Config(128, 64, 8, 2, peel=False, search=True),
    Config(128, 64, 4, 2, search=True),
    Config(64, 128, 4, 2, search=True),
    Config(128, 128, 8, 2, search=True),
)
"""What is worth trying on a device for heads of 64."""

SHORT_CONFIGS: tuple[Config, ...] = (Config(64, 128, 4, 1), Config(128, 128, 8, 1), *CONFIGS[:2])
"""What is worth trying if no document has more than 128 tokens: the first two have no loop then."""


def default_config(max_seqlen: int) -> Config:
    """Small blocks of queries waste less on short documents; large ones read keys and values less often.

    All have blocks of 64 keys: fewer lie behind a document's end, and more programs fit on a multiprocessor.
    """
    if max_seqlen <= 64:
        return Config(64, 64, 4, 1)
    return Config(64, 64, 4, 2, search=True) if max_seqlen <= 256 else Config(128, 64, 8, 2, search=True)
