"""xenc: cross-encoder inference that does not recompile after warm-up."""

from .errors import (
    CompileError,
    ExecutionError,
    ModelError,
    NonFiniteScoreError,
    NotInstalledError,
    OutOfMemoryError,
    Overloaded,
    PairError,
    XencError,
)
from .default_model import DEFAULT_MODEL
from .execution import Execution
from .presets import PRESETS
from .text.prompts import FirstStep
from .models.precision import fastest_dtype
from .compiling.watch import CompileReport, watch_compiles
from .compiling.wrapper import WarmupReport
from .serving.request import PredictReport
from .cross_encoder import CrossEncoder
from .frameworks import replace_cross_encoders

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL",
    "PRESETS",
    "CompileError",
    "CompileReport",
    "CrossEncoder",
    "Execution",
    "ExecutionError",
    "FirstStep",
    "ModelError",
    "NonFiniteScoreError",
    "NotInstalledError",
    "OutOfMemoryError",
    "Overloaded",
    "PairError",
    "PredictReport",
    "WarmupReport",
    "XencError",
    "fastest_dtype",
    "replace_cross_encoders",
    "watch_compiles",
]
