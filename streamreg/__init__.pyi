from .errors import (
    CheckpointError,
    DataCorruptionError,
    DataWarning,
    DivergenceError,
    InputError,
    MemoryLimitError,
    StreamregError,
)
from .estimator import LinearRegression, load, plan
from .ingest import ingest
from .plan import Plan

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
    "ingest",
    "load",
    "plan",
]

__version__: str
