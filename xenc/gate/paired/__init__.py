"""Judging against a revision: two copies -> processes -> blocks -> verdicts -> report."""
