"""Where a solver starts: at zero, at random, or at weights that were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.wording import count, shown

if TYPE_CHECKING:
    from streamreg.blocks import Float64


def initial_weights(
    init: Any,  # noqa: ANN401  (whatever NumPy reads as numbers)
    random_state: Any,  # noqa: ANN401
    n_features: int,
    n_targets: int,
) -> Float64 | None:
    """Return w to start from, (D, K), in the user's units; ``None`` for zeros.

    Raises
    ------
    InputError
        ``init`` is neither ``"zeros"``, ``"random"`` nor an array of fitting shape.
    """
    if isinstance(init, str):
        if init == "zeros":
            return None
        if init == "random":
            normal = _normal(random_state, (n_features, n_targets))
            return np.asarray(normal / np.sqrt(n_features))
        raise InputError(f'init={shown(init)} must be "zeros", "random" or an array (D,)')
    try:
        values = np.asarray(init, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f'init={shown(init)} must be "zeros", "random" or numbers (D,): {error}'
        ) from error
    rows = values[None, :] if values.ndim == 1 else values
    if rows.shape not in {(1, n_features), (n_targets, n_features)}:
        either = f" or ({n_targets}, {n_features})" if n_targets > 1 else ""
        raise InputError(
            f"init has shape {values.shape} but the fit has {count(n_features, 'feature')} and "
            f"{count(n_targets, 'target')}; pass ({n_features},){either}"
        )
    if not np.isfinite(rows).all():
        raise InputError("init has NaN or inf; every starting weight must be finite")
    return np.broadcast_to(rows, (n_targets, n_features)).T.copy()


def _normal(random_state: Any, shape: tuple[int, int]) -> Float64:  # noqa: ANN401
    """Draw from scikit-learn's kinds of ``random_state``, and NumPy's generators."""
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        return np.asarray(random_state.standard_normal(shape))
    try:
        generator = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"random_state={shown(random_state)} seeds no generator: {error}"
        ) from error
    return generator.standard_normal(shape)
