"""The torch.compile wrapper, its warm-up, a watch on compilations, and graphs kept on disk."""
