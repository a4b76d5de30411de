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
from .estimator import LinearRegression, load
from .fit import plan
from .ingest.read import read_table
from .planning.plan import Plan

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
    "read_table",
]

__version__: str
