"""One run of the gate: what was measured, the verdict on each test, and whether the run is green."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .paired.evidence import Paired
from .record import Record
from .stored.evidence import Stored
from .verdict import Judgement, Verdict

NOTHING: Final = "gate::nothing-measured"


@dataclass(kw_only=True)
class GateSession:
    """The state of one run of pytest.

    Attributes:
        stored: the baselines.
        paired: the revision that judges instead of them; None for none.
        judging: whether this run is judged.
        commit: the revision at the start of a run that is stored; "" otherwise.
        records: what was measured.
        judged: the verdicts, by node id.
        messages: lines to be shown at the end.
        failures: reasons why the run is not green, besides its verdicts.
        selected, deselected: the device of each test that runs, and of each that -m, -k or --deselect left
            out, by node id.
    """

    stored: Stored
    paired: Paired | None = None
    judging: bool = False
    commit: str = ""
    records: list[Record] = field(default_factory=list)
    judged: dict[str, Judgement] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    selected: Mapping[str, str] = field(default_factory=dict)
    deselected: Mapping[str, str] = field(default_factory=dict)

    def expect(self, selected: Mapping[str, str], deselected: Mapping[str, str]) -> dict[str, Judgement]:
        """Note what will run; the verdicts on what should be measured and will not be, by node id."""
        self.selected, self.deselected = selected, deselected
        if not self.judging:
            return {}
        if not selected:
            reason = "no benchmark was selected; check the marker (-m cpu, -m gpu)"
            return {NOTHING: Judgement(verdict=Verdict.NOT_MEASURED, reason=reason)}
        if self.paired is None:
            self.messages += [self.stored.describe(device) for device in sorted(set(selected.values()))]
            return self.stored.absent(selected, deselected)
        reason = "this run left it out; the gate needs a full run"
        left_out = [name for name, device in deselected.items() if device in selected.values()]
        self.paired.left_out = len(left_out)
        return dict.fromkeys(left_out, Judgement(verdict=Verdict.NOT_MEASURED, reason=reason))

    def judge(self, record: Record, broken: list[str]) -> Judgement | None:
        """The verdict on a test that ran, by the baselines; None if this run is not judged.

        Args:
            record: what it measured.
            broken: lines of `exact.broken_laws`; any of them makes it REGRESSED.
        """
        if not self.judging:
            return None
        if broken:
            judgement = Judgement(verdict=Verdict.REGRESSED, reason="; ".join(broken))
        else:
            judgement = self.stored.judge(record)
        self.judged[record.name] = judgement
        return judgement

    @property
    def chapters(self) -> Sequence[str]:
        """The reports of what was measured on two revisions."""
        return self.paired.chapters if self.paired is not None else ()

    @property
    def green(self) -> bool:
        """Whether something was selected, all of it was judged green, and nothing else failed."""
        everything = bool(self.selected) and set(self.selected) <= set(self.judged) and not self.failures
        return everything and all(judgement.verdict.green for judgement in self.judged.values())

    def summary(self) -> str:
        """The gate's last line: green or not, the count of each verdict, and failures."""
        tally = Counter(str(judgement.verdict) for judgement in self.judged.values())
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.items()))
        said = "; ".join([counts or "nothing was measured", *self.failures])
        return f"gate {'GREEN' if self.green else 'NOT GREEN'}: {said}"
