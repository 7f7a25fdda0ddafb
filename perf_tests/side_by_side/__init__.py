"""Side-by-side runs: rows that take turns on the same pairs, and goals judged by them."""
