"""PyTorch's jagged tensors, an experiment: batches without padding whose tensors know it."""
