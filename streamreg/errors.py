"""Every error that a user can meet.

StreamregError
├── InputError           ValueError       shapes, types, parameters, NaN or inf
├── MemoryLimitError     MemoryError      the plan needs more than memory_limit
├── DataCorruptionError  OSError          a missing, truncated or damaged chunk
├── DivergenceError      ArithmeticError  the loss rose or left the finite numbers
├── CheckpointError      ValueError       a checkpoint of other data, or damaged
└── ClusterError         RuntimeError     a cluster's workers or scheduler are lost

DataWarning              UserWarning      the fit went on, but its data deserve a look
"""

__all__ = [
    "CheckpointError",
    "ClusterError",
    "DataCorruptionError",
    "DataWarning",
    "DivergenceError",
    "InputError",
    "MemoryLimitError",
    "StreamregError",
]


class StreamregError(Exception):
    """The root of all errors that streamreg raises on purpose."""


class InputError(StreamregError, ValueError):
    """What was passed in cannot be fitted: names the array, rows and columns, or the parameter."""


class MemoryLimitError(StreamregError, MemoryError):
    """The plan needs more than ``memory_limit``; raised before any data is read.

    Or the system refused memory that the limit allows: then during the fit.
    """


class DataCorruptionError(StreamregError, OSError):
    """A chunk is missing, truncated or damaged: names the array, the chunk key and the rows."""


class DivergenceError(StreamregError, ArithmeticError):
    """The loss rose or left the finite numbers: names the learning rate and the largest stable one.

    Attributes
    ----------
    largest_stable
        An estimate of the learning rate above which gradient descent diverges, 2/λ_max.
    """

    largest_stable: float = float("nan")


class CheckpointError(StreamregError, ValueError):
    """A checkpoint belongs to other data or other parameters, or is damaged."""


class ClusterError(StreamregError, RuntimeError):
    """A Dask cluster cannot do the work: its workers differ, are lost, or do not answer."""


class DataWarning(UserWarning):
    """The fit went on, but something in the data deserves a look: it names columns or chunks."""
