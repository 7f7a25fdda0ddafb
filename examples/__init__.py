"""Programs on xenc that are short enough to be copied and changed."""
