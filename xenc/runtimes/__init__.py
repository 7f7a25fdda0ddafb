"""What else than PyTorch runs a model's forward pass, one room for each."""
