"""xenc: cross-encoder inference that never recompiles after warm-up.

The public names, in the order data flows.
"""

from .errors import (
    BaselineError,
    CompileError,
    ExecutionError,
    ModelError,
    NonFiniteScoreError,
    PairError,
    XencError,
)
from .default_model import DEFAULT_MODEL
from .execution import PRESETS, Execution
from .precision import fastest_dtype
from .watch import CompileReport, watch_compiles
from .compiled import WarmupReport
from .request import PredictReport
from .cross_encoder import CrossEncoder

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL",
    "PRESETS",
    "BaselineError",
    "CompileError",
    "CompileReport",
    "CrossEncoder",
    "Execution",
    "ExecutionError",
    "ModelError",
    "NonFiniteScoreError",
    "PairError",
    "PredictReport",
    "WarmupReport",
    "XencError",
    "fastest_dtype",
    "watch_compiles",
]
