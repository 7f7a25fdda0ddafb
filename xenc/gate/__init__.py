"""The performance gate, a pytest plugin: timed rounds -> samples -> baseline -> verdict -> report."""
