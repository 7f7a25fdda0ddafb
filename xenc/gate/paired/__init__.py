"""Judging against a revision: copies of both -> processes -> blocks -> verdicts -> report."""
