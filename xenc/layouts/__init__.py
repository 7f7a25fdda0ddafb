"""Layouts of a batch (padded, packed, packed after a shared prefix): how pairs are planned, collated, run."""
