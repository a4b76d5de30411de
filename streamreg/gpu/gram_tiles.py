"""Tiles made ready for a Gram, in the functions of an array library that works like NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamreg.kernels import Affine


class GramTiles:
    """Writes tiles less their means.

    Parameters
    ----------
    xp
        The library: its functions are called as NumPy's.
    """

    def __init__(self, xp: Any) -> None:  # noqa: ANN401  (arrays of that library, below)
        self._xp = xp

    def ready(
        self,
        tile: Any,  # noqa: ANN401
        columns: Affine,
        weight: Any,  # noqa: ANN401
        total: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        """Write zᵢ = xᵢ·scale - shift, less their mean, times √sᵢ; given Σ sᵢ, or ``None``.

        Returns
        -------
        The mean of z, (D,), zero without Σ sᵢ; and where a z is not zero, (D,).
        """
        xp = self._xp
        if columns.scale is not None:
            xp.multiply(tile, columns.scale, out=out)
            tile = out
        if columns.shift is not None:
            xp.subtract(tile, columns.shift, out=out)
        elif tile is not out:
            out[...] = tile
        varies = out.any(axis=0)
        mean = xp.zeros(out.shape[1])
        if total is not None:
            mean = (out.sum(axis=0) if weight is None else weight @ out) / total
            xp.subtract(out, mean, out=out)
        if weight is not None:
            xp.multiply(out, xp.sqrt(weight)[:, None], out=out)
        return mean, varies
