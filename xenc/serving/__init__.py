"""Requests of many callers -> batches on one device thread -> each caller's answer."""
