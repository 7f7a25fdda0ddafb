"""python -m perf_tests.long_documents: how often an answer in a long text is found, by how the text is read.

The passage of each everyday question stands at a drawn place among sixty sentences of other prose, and each
question ranks the four texts of its theme.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from correctness_tests import everyday
from perf_tests import msmarco
from perf_tests.workloads import sentences
from xenc import DEFAULT_MODEL, CrossEncoder, fastest_dtype
from xenc.profiling.report import table

HOW: Final = ("cut", "first", "mean", "max")

MODELS: Final = {"default": lambda: Path(DEFAULT_MODEL), "msmarco-minilm-l12": msmarco.msmarco_minilm}

_FILLER: Final = 60


def answers_first(model: CrossEncoder) -> int:
    """For how many of the 32 questions the answer's text ranks first; chance is 8."""
    found = 0
    for theme in everyday.THEMES.values():
        documents = [_hidden()[answered.passage] for answered in theme]
        for row, answered in enumerate(theme):
            found += model.rank(answered.question, documents)[0]["corpus_id"] == row
    return found


@cache
def _hidden() -> dict[str, str]:
    """The text around each passage, the same each time."""
    draw, hidden = random.Random(0), {}
    for answered in everyday.QUESTIONS:
        filler = draw.choices(sentences(), k=_FILLER)
        place = draw.randrange(len(filler))
        hidden[answered.passage] = " ".join([*filler[:place], answered.passage, *filler[place:]])
    return hidden


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.long_documents", description=__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="default")
    parser.add_argument("--max-length", type=int, nargs="+", default=[512, 128], help="tokens of a window")
    given = parser.parse_args(arguments)
    checkpoint, dtype = str(MODELS[given.model]()), fastest_dtype("cpu")
    rows = []
    for most in given.max_length:
        options = {"device": "cpu", "max_length": most, "execution": "packed-eager"}
        model = CrossEncoder(checkpoint, model_kwargs={"dtype": dtype}, **options)
        found = []
        for how in HOW:
            model.long_documents = how
            found.append(str(answers_first(model)))
        rows.append([f"{most:,} tokens", *found])
    said = str(dtype).removeprefix("torch.")
    print(table([f"{given.model} in {said}, of {len(everyday.QUESTIONS)}", *HOW], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
