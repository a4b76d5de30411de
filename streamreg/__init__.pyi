from .errors import (
    CheckpointError,
    DataCorruptionError,
    DataWarning,
    DivergenceError,
    InputError,
    MemoryLimitError,
    StreamregError,
)
from .estimator import LinearRegression, load
from .fitting import plan
from .plans import Plan

__all__ = [
    "CheckpointError",
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
