"""How pairs are laid out in batches, one room for each layout."""
