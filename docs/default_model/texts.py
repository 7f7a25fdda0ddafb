"""Passages to be found, and what people might type: made from the sources by simple templates.

No query has one right answer: the teacher says how well each passage fits it (teacher.py), so a template
may be clumsy. It only has to bring the words of the world into questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from random import Random

from docs.default_model.sources import Paragraph, Sense, countries, python_topics, senses

NOUN = (
    "what is {}?", "what is {} used for?", "how does {} work?", "where can I find {}?",
    "why is {} important?", "how do I use {}?", "what causes {}?", "tell me about {}", "{}",
    "best {}", "how to choose {}", "what happens to {}?", "who needs {}?", "how is {} made?",
    "what kinds of {} are there?",
)  # fmt: skip
VERB = (
    "how do I {}?", "why do people {}?", "what does it mean to {}?", "how to {}", "when should I {}?",
    "can animals {}?", "what happens when you {}?", "{}", "how long does it take to {}?",
)  # fmt: skip
ADJECTIVE = ("what is {}?", "what does {} mean?", "something {}", "why is it {}?", "who is {}?")
TEMPLATES = {"noun": NOUN, "verb": VERB, "adjective": ADJECTIVE}
COMBINED = (
    "how do I {verb} the {noun}?", "why does the {noun} {verb}?", "how does {noun} {verb}?",
    "what is the best {noun} to {verb}?", "can I {verb} my {noun}?", "is it {adjective} to {verb} {noun}?",
    "how can I keep my {noun} {adjective}?", "why is the {noun} {adjective}?",
    "where does the {noun} {verb}?",
)  # fmt: skip
ABOUT_DEFINITION = ("what do you call {}?", "{}", "which word means {}?", "how to recognise {}?")
ABOUT_EXAMPLE = ("{}", "why is it that {}?", "how come {}?", "{}: is that normal?", "what to do when {}?")
ABOUT_PARAGRAPH = ("what is the {}?", "{}", "tell me about the {}", "{} explained", "I want to know the {}")


@dataclass(frozen=True)
class Texts:
    """Different passages, and different queries."""

    passages: tuple[str, ...]
    queries: tuple[str, ...]


def make_texts(archives: Path, vocabulary: Collection[str], seed: int) -> Texts:
    """All passages and queries, in an order that the seed settles."""
    random = Random(seed)
    meanings = senses(archives, vocabulary)
    prose = [*countries(archives), *python_topics()]
    passages = [*definitions(meanings, random), *families(meanings, random), *(each.text for each in prose)]
    queries = [*about_senses(meanings, random), *about_several(meanings, random), *about_prose(prose, random)]
    unique = [list(dict.fromkeys(texts)) for texts in (passages, queries)]
    for texts in unique:
        random.shuffle(texts)
    return Texts(tuple(unique[0]), tuple(unique[1]))


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def definitions(meanings: list[Sense], random: Random) -> list[str]:
    """A passage of each meaning; a third of them do not name the word they explain."""
    by_key = {sense.key: sense for sense in meanings}
    passages = []
    for sense in meanings:
        named = f"{' or '.join(sense.words[:2])}: {sense.definition}"
        parts = [sentence(sense.definition if random.random() < 1 / 3 else named)]
        parts += [sentence(example) for example in sense.examples[:3]]
        wider = [by_key[key] for key in sense.wider if key in by_key]
        if wider and random.random() < 0.5:
            parts.append(sentence(f"{wider[0].words[0]}: {wider[0].definition}"))
        passages.append(" ".join(parts))
    return passages


def families(meanings: list[Sense], random: Random) -> list[str]:
    """Longer passages: a meaning and up to four that are narrower."""
    narrower = defaultdict(list)
    for sense in meanings:
        for key in sense.wider:
            narrower[key].append(sense)
    passages = []
    for sense in meanings:
        below = narrower[sense.key]
        if len(below) >= 3:
            some = random.sample(below, min(4, len(below)))
            lines = [f"{each.words[0]}: {each.definition}" for each in (sense, *some)]
            passages.append(" ".join(sentence(line) for line in lines))
    return passages


def about_senses(meanings: list[Sense], random: Random) -> list[str]:
    """One query of each word, one in three of a definition, and one of an example where there is one."""
    queries = []
    for sense in meanings:
        queries.append(random.choice(TEMPLATES[sense.part]).format(random.choice(sense.words)))
        if random.random() < 1 / 3:
            queries.append(random.choice(ABOUT_DEFINITION).format(sense.definition))
        if sense.examples:
            queries.append(random.choice(ABOUT_EXAMPLE).format(random.choice(sense.examples)))
    return [query for query in queries if len(query) < 200]


def about_several(meanings: list[Sense], random: Random) -> list[str]:
    """Words thrown together: what they have to do with each other is for the teacher to say."""
    words = defaultdict(list)
    for sense in meanings:
        words[sense.part].append(sense.words[0])
    return [
        random.choice(COMBINED).format(**{part: random.choice(some) for part, some in words.items()})
        for _ in range(len(meanings) // 2)
    ]


def about_prose(prose: list[Paragraph], random: Random) -> list[str]:
    """A query of each heading, and one of each paragraph's first words."""
    headings = [random.choice(ABOUT_PARAGRAPH).format(each.about) for each in prose]
    return headings + [" ".join(each.text.split()[:14]) for each in prose if random.random() < 0.5]
