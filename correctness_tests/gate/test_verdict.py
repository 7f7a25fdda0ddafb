"""The words of the gate: which of them let a merge go ahead."""

from __future__ import annotations

from xenc.gate.verdict import Verdict


def test_only_pass_and_improved_are_green():
    assert {verdict for verdict in Verdict if verdict.green} == {Verdict.PASS, Verdict.IMPROVED}
