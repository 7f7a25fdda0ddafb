"""Scoring on several machines with Ray: a pool of workers for files, and a callable class for Ray Data."""

from .connection import ClusterError, connected, ray
from .members import Share, share_of
from .pool import Pool
from .scorer import Scorer

__all__ = ["ClusterError", "Pool", "Scorer", "Share", "connected", "ray", "share_of"]
