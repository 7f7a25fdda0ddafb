"""Hypothesis strategies: texts that upset tokenizers, lists of pairs, token counts, buckets."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from perf_tests.workloads import sentences

FEW = settings(max_examples=settings.default.max_examples // 5)
"""For laws that run a model."""

MANY = settings(max_examples=settings.default.max_examples // 2)
"""For the one that implies others."""

SCRIPTS = {
    "Latin": "abcdefghij KLMNOP àéîöß ﬁ ǆ",
    "CJK": "机器翻译是什么 日本語の文章 한국어 문장",
    "Arabic": "السلام عليكم ورحمة اللّٰه",
    "Devanagari": "नमस्ते दुनिया क्षत्रिय",
    "Cyrillic": "Съешь же ещё этих мягких булок",
}

EMOJI = ("🙂", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "❤️", "1️⃣")

ODD_SPACE = "\t\n\r\x0b\x0c\x00\x1f\x7f\x85\u00a0\u00ad\u200b\u200d\u2028\u202e\u3000\ufeff\ufffd"

NO_TOKENS = ("", " ", "\t\n", "\u200b", "\x00")


def _script_texts() -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(SCRIPTS.values())).flatmap(
        lambda letters: st.text(st.sampled_from(letters), min_size=1, max_size=40)
    )


def _long_texts() -> st.SearchStrategy[str]:
    # two such texts in one pair: what a Rust tokenizer cuts off grows with the product of their lengths
    return st.builds(
        lambda text, end: (text * 20)[:end], st.sampled_from(sentences()), st.integers(200, 2500)
    )


def texts() -> st.SearchStrategy[str]:
    """From no tokens at all to far beyond any model's length; no lone surrogates, which no UTF-8 holds."""
    atoms = st.one_of(
        st.sampled_from(NO_TOKENS),
        st.sampled_from(sentences()),
        _script_texts(),
        st.lists(st.sampled_from(EMOJI), min_size=1, max_size=6).map("".join),
        st.text(st.sampled_from(ODD_SPACE), min_size=1, max_size=8),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    )
    mixed = st.lists(atoms, min_size=2, max_size=4).map(" ".join)
    return st.one_of(atoms, mixed, _long_texts())


def pairs() -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(texts(), texts())


@st.composite
def lists_of_pairs(draw: st.DrawFn, max_size: int = 11) -> list[tuple[str, str]]:
    """One to several batches of 4; some pairs stand there twice."""
    unique = draw(st.lists(pairs(), min_size=1, max_size=max_size - 2))
    again = draw(st.lists(st.sampled_from(unique), max_size=2))
    return list(draw(st.permutations(unique + again)))


def bucket_specs(max_length: int) -> st.SearchStrategy[int | str | tuple[int, ...]]:
    """What `Execution.buckets` accepts, reaching max_length."""
    explicit = st.sets(st.integers(1, 2 * max_length), max_size=6).map(
        lambda lengths: tuple(sorted({*lengths, max_length}))
    )
    return st.one_of(
        st.integers(1, 2 * max_length), st.sampled_from(["powers-of-two", "max-length"]), explicit
    )


def token_counts(max_length: int, edges: tuple[int, ...] = ()) -> st.SearchStrategy[list[int]]:
    """Counts from 0 to max_length, with a liking for `edges` and the numbers beside them."""
    near = sorted({edge + step for edge in (*edges, max_length) for step in (-1, 0, 1)} | {0, 1})
    allowed = [count for count in near if 0 <= count <= max_length]
    return st.lists(st.one_of(st.integers(0, max_length), st.sampled_from(allowed)), max_size=30)
