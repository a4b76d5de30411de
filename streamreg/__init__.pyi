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
from .estimators.evaluate import evaluate
from .estimators.linear_regression import LinearRegression
from .estimators.linear_regression_cv import LinearRegressionCV
from .estimators.load import load
from .ingest.read import read_table
from .planning.plan import Plan
from .predict.scores import Evaluation
from .statistics.plan import plan
from .statistics.statistics import Statistics

__all__ = [
    "CheckpointError",
    "ClusterError",
    "DataCorruptionError",
    "DataWarning",
    "DivergenceError",
    "Evaluation",
    "InputError",
    "LinearRegression",
    "LinearRegressionCV",
    "MemoryLimitError",
    "Plan",
    "Statistics",
    "StreamregError",
    "__version__",
    "evaluate",
    "load",
    "plan",
    "read_table",
]

__version__: str
