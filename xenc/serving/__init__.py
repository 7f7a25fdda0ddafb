"""Requests from many threads -> shared batches on one device thread -> each caller's answer."""
