"""Pairs in files of any size: read in chunks, scored, written, and gone on with after a kill."""

from .chunk import Bad, Columns, Place
from .formats import FORMATS, STREAM, PairsFile, format_of, read_pairs
from .scores_file import ScoresFile, taken
from .scoring import Answers, Here, ScoredChunk, Scoring, begun, encoded_apart, scored
from .stream import Stream
from .unfinished import Progress, Unfinished

__all__ = [
    "FORMATS",
    "STREAM",
    "Answers",
    "Bad",
    "Columns",
    "Here",
    "PairsFile",
    "Place",
    "Progress",
    "ScoredChunk",
    "ScoresFile",
    "Scoring",
    "Stream",
    "Unfinished",
    "begun",
    "encoded_apart",
    "format_of",
    "read_pairs",
    "scored",
    "taken",
]
