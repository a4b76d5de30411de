"""The kernels in their plainest form, for any array namespace: what the others are tested against.

Each returns the sums of one block, as a dictionary with the names of the state's fields. X is
(n, D), y (n, K), weight (n,); all are float64 arrays of one namespace of the array API standard.
"""

from __future__ import annotations

from typing import Any

from streamreg.blocks import namespace


def products(X: Any, y: Any, weight: Any, V: Any, bias: Any, shift: Any) -> dict[str, Any]:
    """Sums over u = (X - c)V + b, less y in its first K columns; V is (D, M), b (M,), c (D,)."""
    xp = namespace(X)
    k = y.shape[1]
    z = X - shift
    u = xp.matmul(z, V) + bias
    r, along = u[:, :k] - y, u[:, k:]
    u = xp.concat([r, along], axis=1)
    su = u * weight[:, None]
    paired = along.shape[1] > 0
    none = xp.zeros((k,), dtype=X.dtype)
    return {
        "n": X.shape[0],
        "s": xp.sum(weight),
        "sums": xp.sum(su, axis=0),
        "rr": xp.sum(su[:, :k] * r, axis=0),
        "ru": xp.sum(su[:, :k] * along, axis=0) if paired else none,
        "uu": xp.sum(su[:, k:] * along, axis=0) if paired else none,
        "products": xp.matmul(xp.permute_dims(su, (1, 0)), z),
    }


def moments(X: Any, y: Any, weight: Any) -> dict[str, Any]:
    """Means, centred sums and bounds of a block."""
    xp = namespace(X)
    s = xp.sum(weight)
    mean, y_mean = _mean(X, weight), _mean(y, weight)
    z, z_y = X - mean, y - y_mean
    szy = z_y * weight[:, None]
    return {
        "n": X.shape[0],
        "s": s,
        "mean": mean,
        "m2": xp.sum(z * z * weight[:, None], axis=0),
        "low": xp.min(X, axis=0),
        "high": xp.max(X, axis=0),
        "y_mean": y_mean,
        "y_m2": xp.sum(z_y * szy, axis=0),
        "y_high": xp.max(xp.abs(y), axis=0),
        "cross": xp.matmul(xp.permute_dims(szy, (1, 0)), z),
    }


def gram(X: Any, y: Any, weight: Any, *, centred: bool) -> dict[str, Any]:
    """Second moments of a block about its mean, or about zero; ``gram`` is the whole square."""
    xp = namespace(X)
    none, y_none = xp.zeros_like(X[0, :]), xp.zeros_like(y[0, :])
    mean, y_mean = (_mean(X, weight), _mean(y, weight)) if centred else (none, y_none)
    z, z_y = X - mean, y - y_mean
    sz = xp.permute_dims(z * weight[:, None], (1, 0))
    return {
        "n": X.shape[0],
        "s": xp.sum(weight),
        "mean": mean,
        "y_mean": y_mean,
        "gram": xp.matmul(sz, z),
        "cross": xp.matmul(sz, z_y),
        "y_m2": xp.sum(z_y * z_y * weight[:, None], axis=0),
    }


def _mean(values: Any, weight: Any) -> Any:
    xp = namespace(values)
    return xp.sum(values * weight[:, None], axis=0) / xp.sum(weight)
