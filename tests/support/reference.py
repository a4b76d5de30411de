"""The kernels in their plainest form, for any array namespace: what the others are tested against.

Each returns the sums of one block, as a dictionary with the names of the state's fields. X is
(n, D), y (n, K), weight (n,); all are float64 arrays of one namespace of the array API standard.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from streamreg.blocks import namespace

# an array of any library
AnyArray: TypeAlias = Any
Sums: TypeAlias = dict[str, AnyArray]


def products(X: AnyArray, y: AnyArray, weight: AnyArray, V: AnyArray, bias: AnyArray) -> Sums:
    """Return sums over u = XV + b; y is subtracted from the first K columns; V (D, M), b (M,)."""
    xp = namespace(X)
    k = y.shape[1]
    u = xp.matmul(X, V) + bias
    r = u[:, :k] - y
    su = xp.concat([r, u[:, k:]], axis=1) * weight[:, None]
    return {
        "n": X.shape[0],
        "s": xp.sum(weight),
        "sums": xp.sum(su, axis=0),
        "rr": xp.sum(su[:, :k] * r, axis=0),
        "products": xp.matmul(xp.permute_dims(su, (1, 0)), X),
    }


def moments(X: AnyArray, y: AnyArray, weight: AnyArray) -> Sums:
    """Return means, centred sums and bounds of a block."""
    xp = namespace(X)
    mean, y_mean = _mean(X, weight), _mean(y, weight)
    z, z_y = X - mean, y - y_mean
    szy = z_y * weight[:, None]
    return {
        "n": X.shape[0],
        "s": xp.sum(weight),
        "mean": mean,
        "m2": xp.sum(z * z * weight[:, None], axis=0),
        "low": xp.min(X, axis=0),
        "high": xp.max(X, axis=0),
        "y_mean": y_mean,
        "y_m2": xp.sum(z_y * szy, axis=0),
        "y_low": xp.min(y, axis=0),
        "y_high": xp.max(y, axis=0),
        "cross": xp.matmul(xp.permute_dims(szy, (1, 0)), z),
    }


def gram(X: AnyArray, y: AnyArray, weight: AnyArray, *, centred: bool) -> Sums:
    """Return second moments about the mean, or about zero; ``gram`` has both triangles."""
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


def _mean(values: AnyArray, weight: AnyArray) -> AnyArray:
    xp = namespace(values)
    return xp.sum(values * weight[:, None], axis=0) / xp.sum(weight)
