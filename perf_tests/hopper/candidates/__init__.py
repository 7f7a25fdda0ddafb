"""Kernels that may become faster than those in use; each module needs Triton, the package itself does not."""
