"""The performance gate: scores are timed -> samples -> baseline -> verdict -> report."""
