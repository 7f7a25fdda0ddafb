"""Token counts -> batches: which pairs share one (plan), and how they are laid out in it (collate)."""
