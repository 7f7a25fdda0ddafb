"""The whole claim on one GPU: every row side by side in one process, and what became of each goal."""
