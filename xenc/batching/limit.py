"""What the device's memory has turned out to hold, for one model under one execution. Pure integers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Limit:
    """Learned from batches that did not fit. Written by the device's thread alone.

    Attributes:
        most: batches are filled up to this many tokens, padding and dummies included; None for any number.
        unfit: the fewest tokens of a batch that did not fit; such sizes are left to a pair that needs one.
        unread: the fewest tokens of a batch in which a shared prefix could not be read.
    """

    most: int | None = None
    unfit: int | None = None
    unread: int | None = None

    def halve(self, tokens: int) -> None:
        """A batch of so many tokens did not fit: those that follow have at most half."""
        if self.most is None or tokens <= self.most:
            self.most = tokens // 2
        self.unfit = min(tokens, self.unfit or tokens)
