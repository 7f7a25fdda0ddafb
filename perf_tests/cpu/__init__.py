"""One processor: xenc and what one would use instead, like with like in one run."""
