"""What every side-by-side run shares: rows that take turns on the same pairs, and goals judged by them."""
