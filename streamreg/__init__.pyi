from .errors import (
    CheckpointError,
    ClusterError,
    DataCorruptionError,
    DataWarning,
    DivergenceError,
    InputError,
    MemoryLimitError,
    StreamregError,
)
from .estimator import LinearRegression
from .fitting import plan
from .loading import load
from .plans import Plan

__all__ = [
    "CheckpointError",
    "ClusterError",
    "DataCorruptionError",
    "DataWarning",
    "DivergenceError",
    "InputError",
    "LinearRegression",
    "MemoryLimitError",
    "Plan",
    "StreamregError",
    "__version__",
    "load",
    "plan",
]

__version__: str
