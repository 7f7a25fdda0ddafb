"""Tests that should be measured and are not: each fails under its own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from .session import GateSession
from .verdict import Judgement


class Unmeasured(pytest.Item):
    """A test that fails, in place of a benchmark that should be measured and is not."""

    judgement: Judgement
    gate: GateSession

    @classmethod
    def of(cls, session: pytest.Session, name: str, judgement: Judgement, gate: GateSession) -> Unmeasured:
        """An item with the node id of the missing benchmark."""
        item: Unmeasured = cls.from_parent(session, name=name.rpartition("::")[2] or name, nodeid=name)
        item.judgement, item.gate = judgement, gate
        return item

    def runtest(self) -> None:
        """Fail, with the verdict."""
        self.gate.judged[self.nodeid] = self.judgement
        pytest.fail(f"{self.judgement.verdict}: {self.judgement.reason}", pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The place of this item in pytest's reports."""
        return Path(self.nodeid.partition("::")[0]), None, self.name
