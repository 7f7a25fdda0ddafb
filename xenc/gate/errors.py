"""Errors that the gate raises. Each message names what is wrong and the remedy."""

from __future__ import annotations


class GateError(Exception):
    """Base class of the gate's errors."""


class BaselineError(GateError, ValueError):
    """A stored baseline, or the list of accepted facts, cannot be read or written."""


class RevisionError(GateError, ValueError):
    """A revision cannot be found, copied or imported."""


class UnpairableError(GateError):
    """The base revision cannot run beside the head."""


class UnreachableError(GateError):
    """The rule could not call a slowdown of must_see REGRESSED."""


class CampaignError(GateError, RuntimeError):
    """A measuring process failed, or another gate is measuring on this machine."""


class SubjectError(GateError, ValueError):
    """A test asked for a measurement that cannot be made."""
