"""Numbers in two floats: a high part, rounded, and a low part, its error; about 32 digits.

A product of two floats is split into its rounded value and its error, and so is a sum [1]_. The
functions use operators only, so that they serve arrays of any library, of any shapes that
broadcast. Values beyond 2⁹⁹⁶ overflow.

References
----------
.. [1] Ogita, Rump & Oishi (2005), SIAM J. Sci. Comput. 26(6), 1955-1988.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

# a float, or an array of any library
Numbers: TypeAlias = Any

_SPLIT = 2.0**27 + 1


class TwoFloats(NamedTuple):
    """Numbers, as unevaluated sums high + low with |low| ≤ 2⁻⁵³ |high|."""

    high: Numbers
    low: Numbers

    @classmethod
    def of(cls, values: Numbers) -> TwoFloats:
        """Return float64 numbers, exactly."""
        return cls(values, 0 * values)

    def __neg__(self) -> TwoFloats:
        return TwoFloats(-self.high, -self.low)

    def plus(self, other: TwoFloats) -> TwoFloats:
        """Return the sum."""
        high, error = two_sum(self.high, other.high)
        return normalised(high, error + (self.low + other.low))

    def times(self, other: TwoFloats) -> TwoFloats:
        """Return the product, element by element."""
        high, error = two_product(self.high, other.high)
        return normalised(high, error + (self.high * other.low + self.low * other.high))

    def rounded(self) -> Numbers:
        """Return float64 numbers, correctly rounded."""
        return self.high + self.low


def two_sum(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """Return a + b, rounded, and its error: Knuth (1969)."""
    rounded = a + b
    other = rounded - a
    return rounded, (a - (rounded - other)) + (b - other)


def two_product(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """Return a·b, rounded, and its error: Dekker (1971), Numer. Math. 18, 224-242."""
    rounded = a * b
    a_high, b_high = _SPLIT * a - (_SPLIT * a - a), _SPLIT * b - (_SPLIT * b - b)
    a_low, b_low = a - a_high, b - b_high
    return rounded, a_low * b_low - (
        ((rounded - a_high * b_high) - a_low * b_high) - a_high * b_low
    )


def normalised(high: Numbers, low: Numbers) -> TwoFloats:
    """Return high + low with the low part smaller than half a unit in the last place of high."""
    rounded = high + low
    return TwoFloats(rounded, low - (rounded - high))


def total(high: Numbers, low: Numbers) -> TwoFloats:
    """Return the sum of high + low along the first axis, by halves."""
    while len(high) > 1:
        half = len(high) // 2
        summed, error = two_sum(high[:half], high[half : 2 * half])
        error += low[:half] + low[half : 2 * half]
        if len(high) % 2:
            summed[0], last = two_sum(summed[0], high[-1])
            error[0] += last + low[-1]
        high, low = summed, error
    return normalised(high[0], low[0])


def product(a: TwoFloats, b: TwoFloats) -> TwoFloats:
    """Return the sum of a·b along the first axis."""
    high, error = two_product(a.high, b.high)
    return total(high, error + (a.high * b.low + a.low * b.high))


def stacked(values: TwoFloats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return high and low parts as one array (2, …)."""
    return np.stack([values.high, values.low])
