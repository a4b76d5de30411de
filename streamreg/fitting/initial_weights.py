"""The weights that a solver starts from: the parameters ``init`` and ``random_state``."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError, PythonOnly
from streamreg.formatting import count, given

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.config.fit_config import FitConfig


def initial_weights(config: FitConfig, d: int, k: int) -> Float64 | None:
    """Return w to start from, (D, K), in the user's units; ``None`` for zeros."""
    if isinstance(config.init, str):
        if config.init == "zeros":
            return None
        if config.init == "random":
            return np.asarray(_random_normal(config, (d, k)) / np.sqrt(d))
        raise InputError(
            given("init", config.init),
            ' must be "zeros" or "random"',
            PythonOnly(", or an array (D,)"),
        )
    try:
        values = np.asarray(config.init, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            given("init", config.init), f' must be "zeros", "random" or numbers (D,): {error}'
        ) from error
    rows = values[None, :] if values.ndim == 1 else values
    if rows.shape not in {(1, d), (k, d)}:
        either = f" or ({k}, {d})" if k > 1 else ""
        raise InputError(
            f"init has shape {values.shape} but the fit has {count(d, 'feature')} and "
            f"{count(k, 'target')}; pass ({d},){either}"
        )
    if not np.isfinite(rows).all():
        raise InputError("init has NaN or inf; every starting weight must be finite")
    return np.broadcast_to(rows, (k, d)).T.copy()


def _random_normal(config: FitConfig, shape: tuple[int, int]) -> Float64:
    """Draw normal numbers; ``random_state`` is as in scikit-learn, or a NumPy generator."""
    seed = config.random_state
    if isinstance(seed, np.random.RandomState | np.random.Generator):
        return np.asarray(seed.standard_normal(shape))
    if seed is None and config.checkpoint is not None:
        # the seed is the same when the fit is resumed
        seed = zlib.crc32(os.path.realpath(config.checkpoint).encode())
    try:
        return np.random.default_rng(seed).standard_normal(shape)
    except (TypeError, ValueError) as error:
        raise InputError(
            given("random_state", seed), f" cannot seed a generator: {error}"
        ) from error
