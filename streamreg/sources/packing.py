"""Arrays that carry their units: the attributes of the CF conventions, as xarray decodes them."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError, Remedy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamreg.blocks import Array

# attributes that say what stored values mean; others, such as a title, are not read
NAMES = (
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "valid_min",
    "valid_max",
    "valid_range",
    "_Unsigned",
    "units",
    "calendar",
    "dtype",
)
_NUMBERS = NAMES[: NAMES.index("_Unsigned")]
# such as "hours since 1900-01-01"; xarray makes dates of these
_DATES = re.compile(
    r"\s*(years?|months?|days?|d|hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s|milliseconds?|ms|"
    r"microseconds?|us|nanoseconds?|ns)\s+since\s+\S.*",
    re.IGNORECASE,
)
# values that are decoded at once, so that they are in the processor's cache for every step
_PIECE = 1 << 15

# below any value, above any value
_NO_LIMITS = (-np.inf, np.inf)


@dataclass(frozen=True)
class Packing:
    """How stored values become numbers: value = stored · scale + offset, or NaN if it is missing.

    The dtypes are those of xarray's ``decode_cf``, and so are the values. Values outside
    ``valid_range`` are missing too, as the CF conventions (2.5.1) and netCDF4-python have it;
    xarray does not look at it.
    """

    stored: np.dtype[Any]  # of stored values; integers may be read with the other sign
    dtype: np.dtype[Any]  # of decoded values
    fills: tuple[Any, ...]  # stored values that mean: missing
    scale: Any
    offset: Any
    stored_limits: tuple[Any, Any]  # of stored values that are not missing
    limits: tuple[Any, Any]  # the same, of decoded values
    missing_text: str  # which attributes make values missing; empty if none can

    @classmethod
    def of(cls, attributes: Mapping[str, Any], stored: np.dtype[Any], name: str) -> Packing | None:
        """Return how to decode an array; ``None`` if its stored values are its numbers.

        Raises :class:`InputError` for dates, and for an attribute that is no number.
        """
        if stored.kind not in "biuf" or not attributes:
            return None
        _refuse_dates(attributes, name)
        known = {key: _numbers(key, attributes[key], name) for key in _NUMBERS if key in attributes}
        scale, offset = (known.get(key, [None])[0] for key in ("scale_factor", "add_offset"))
        signed = _with_sign(stored, _text(attributes.get("_Unsigned")))
        fills = _fills(known, stored, signed)
        is_packed = scale is not None or offset is not None
        stored_limits, limits = _limits(known, signed), _NO_LIMITS
        if is_packed and signed.kind in "iu" and _limits_are_floats(known):
            # netCDF's rule: limits of another type than the stored one are of decoded values
            stored_limits, limits = _NO_LIMITS, stored_limits
        may_miss = bool(fills) or stored_limits != _NO_LIMITS or limits != _NO_LIMITS
        dtype = signed
        if is_packed:
            dtype = _packed_dtype(signed, scale, offset)
            if signed.kind == "f" and not fills and {"_FillValue", "missing_value"} & known.keys():
                dtype = signed  # xarray's rule for a fill value of NaN
        elif may_miss:
            dtype = _masked_dtype(signed)
        elif _text(attributes.get("dtype")) == "bool":
            dtype = np.dtype(bool)
        if dtype == stored and not (is_packed or may_miss):
            return None
        texts = [f"{key} = {attributes[key]}" for key in _NUMBERS[2:] if key in attributes]
        return cls(
            stored=signed,
            dtype=dtype.newbyteorder("="),
            fills=fills,
            scale=scale,
            offset=offset,
            stored_limits=stored_limits,
            limits=limits,
            missing_text=", ".join(texts) if may_miss else "",
        )

    def decode(self, stored: Array, out: Array) -> None:
        """Fill ``out``, of ``dtype``, with the decoded values of rows of the same shape."""
        step = max(1, _PIECE // max(1, out[:1].size))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for start in range(0, len(out), step):
                self._decode(stored[start : start + step], out[start : start + step])

    def decoded(self, stored: Array) -> Array:
        """Return the decoded values of rows, in a new array."""
        out = np.empty(stored.shape, self.dtype)
        self.decode(stored, out)
        return out

    def _decode(self, stored: Array, out: Array) -> None:
        values = stored if stored.dtype == self.stored else stored.view(self.stored)
        np.copyto(out, values, casting="unsafe")
        if self.scale is not None:
            out *= self.scale
        if self.offset is not None:
            out += self.offset
        for limits, compared in ((self.stored_limits, values), (self.limits, out)):
            if limits != _NO_LIMITS:
                np.putmask(out, (compared < limits[0]) | (compared > limits[1]), np.nan)
        for fill in self.fills:
            np.putmask(out, values == fill, np.nan)


def undecoded_text(attributes: Mapping[str, Any], dtype: np.dtype[Any], name: str) -> list[str]:
    """Return the warning about a labelled array of xarray that still carries such attributes.

    xarray decodes arrays itself and then drops the attributes, unless the user turned that off.
    """
    known = attributes_of(attributes)
    if Packing.of({key: known[key] for key in _NUMBERS if key in known}, dtype, name) is None:
        return []
    text = (
        f"{name} carries the attributes {', '.join(known)}, which xarray has not applied: its "
        "values are read as they are. Open it with mask_and_scale=True, xarray's default, or pass "
        "decode_cf=False if the values are right"
    )
    return [text]


def attributes_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of :data:`NAMES` that an array carries, as scalars where possible."""
    known: dict[str, Any] = {}
    for name in NAMES:
        value = attributes.get(name)
        if isinstance(value, np.ndarray | list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str | bytes):
            number = _number(value) if name in _NUMBERS else None
            value = _text(value) if number is None else number
        if value is not None:
            known[name] = value
    return known


def _refuse_dates(attributes: Mapping[str, Any], name: str) -> None:
    units = _text(attributes.get("units"))
    if _DATES.fullmatch(units):
        raise InputError(
            f"{name} holds dates, {units!r}, and dates are not real numbers: subtract a date, or "
            "pass ",
            Remedy("decode_cf", value=False),
            " to read the numbers as they are stored",
        )


def _text(value: Any) -> str:  # noqa: ANN401  (an attribute of any type)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _numbers(key: str, value: Any, name: str) -> list[Any]:  # noqa: ANN401  (an attribute)
    """Return the numbers of an attribute, of Python or NumPy, whose type decides the dtype."""
    values = np.ravel(value).tolist() if isinstance(value, list | tuple) else [value]
    if isinstance(value, np.ndarray):
        values = list(value.ravel())
    numbers = [_number(each) for each in values]
    if not numbers or any(number is None for number in numbers):
        raise InputError(
            f"the attribute {key} of {name} is {value!r}, which is no number: correct it, or pass ",
            Remedy("decode_cf", value=False),
            " to read the numbers as they are stored",
        )
    return numbers


def _number(value: Any) -> Any:  # noqa: ANN401  (an attribute, and a number of Python or NumPy)
    """Return a number; ``None`` for anything else. A text may be a number in base64, or "NaN"."""
    if isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return value
    if not isinstance(value, str | bytes):
        return None
    text = _text(value)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # xarray's form of a float in Zarr v3
        return struct.unpack("<d", base64.b64decode(text, validate=True))[0]
    except (binascii.Error, ValueError, struct.error):
        return None


def _with_sign(stored: np.dtype[Any], unsigned: str) -> np.dtype[Any]:
    """Return the dtype with the sign that the attribute ``_Unsigned`` says."""
    kind = {"true": "u", "false": "i"}.get(unsigned.lower())
    if kind is None or stored.kind not in "iu":
        return stored
    return np.dtype(f"{kind}{stored.itemsize}").newbyteorder(stored.byteorder)


def _fills(
    known: Mapping[str, list[Any]], stored: np.dtype[Any], signed: np.dtype[Any]
) -> tuple[Any, ...]:
    """Return the stored values that mean: missing. NaN needs no entry."""
    given = [*known.get("missing_value", ()), *known.get("_FillValue", ())]
    fills: list[Any] = []
    for fill in given:
        if fill != fill:  # noqa: PLR0124  (NaN)
            continue
        values = [fill]
        if stored.kind == "f":
            # the number that an array of this dtype holds for it
            values.append(float(stored.type(fill)))
        elif signed != stored and float(fill).is_integer():
            values = [int(fill) % 2 ** (8 * stored.itemsize)]
            if signed.kind == "i" and values[0] >= 2 ** (8 * stored.itemsize - 1):
                values[0] -= 2 ** (8 * stored.itemsize)
        fills += [value for value in values if value not in fills]
    return tuple(fills)


def _limits_are_floats(known: Mapping[str, list[Any]]) -> bool:
    keys = ("valid_min", "valid_max", "valid_range")
    values = (value for key in keys for value in known.get(key, ()))
    return any(isinstance(value, float | np.floating) for value in values)


def _limits(known: Mapping[str, list[Any]], signed: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the least and the largest value that is not missing."""
    low, high = known.get("valid_min", [-np.inf])[0], known.get("valid_max", [np.inf])[0]
    if len(known.get("valid_range", ())) == 2:  # noqa: PLR2004  (least, largest)
        low, high = known["valid_range"]
    low, high = (-np.inf if low != low else low), (np.inf if high != high else high)  # noqa: PLR0124
    if signed.kind == "f":
        # rounded as stored values are, so that the limits themselves are valid
        return float(signed.type(low)), float(signed.type(high))
    if signed.kind == "u" and not _limits_are_floats(known):
        # an integer was written with the stored type, which is signed
        whole = 2 ** (8 * signed.itemsize)
        low, high = (int(at) % whole if -whole < at < 0 else at for at in (low, high))
    return low, high


def _packed_dtype(stored: np.dtype[Any], scale: Any, offset: Any) -> np.dtype[Any]:  # noqa: ANN401
    """Return the dtype of packed values, as xarray's ``_choose_float_dtype`` does.

    It is float64, but float32 where both numbers, or a scale alone, are float32 and the stored
    values are exact in it. Whole numbers as attributes count as float64 here.
    """
    types = {np.dtype(type(value)) for value in (scale, offset) if value is not None}
    if types != {np.dtype(np.float32)} or scale is None:
        return np.dtype(np.float64)
    if offset is not None and stored.kind in "iu" and stored.itemsize == 4:  # noqa: PLR2004
        return np.dtype(np.float64)
    return np.dtype(np.float32)


def _masked_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of values of which some are NaN: that of xarray's ``maybe_promote``."""
    if stored.kind == "f":
        return stored
    return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)  # noqa: PLR2004
