"""A checkpoint -> modules, a batch -> logits: families, heads, forward passes, quantised copies."""
