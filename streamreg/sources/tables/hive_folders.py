"""Columns whose values are names of folders, as in ``year=2020/``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

if TYPE_CHECKING:
    from pathlib import Path

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def hive_keys(path: Path) -> dict[str, str]:
    """Return the columns and values that the folders of a path name."""
    pairs = (part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, value in pairs}


def partition_scalars(keys: list[dict[str, str]]) -> list[dict[str, pa.Scalar]]:
    """Return the values of folders as integers, if all of a column are, else as texts."""
    types = {}
    for name in keys[0]:
        values = [each[name] for each in keys if each[name] != _NO_PARTITION]
        # as pyarrow: 2020 is a number, and 01 a text, because it would not be written so
        is_integer = values and all(value == str(_integer(value)) for value in values)
        types[name] = pa.int64() if is_integer else pa.string()
    return [
        {
            name: pa.scalar(
                None
                if each[name] == _NO_PARTITION
                else int(each[name])
                if kind == pa.int64()
                else each[name],
                kind,
            )
            for name, kind in types.items()
        }
        for each in keys
    ]


def _integer(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) < 1 << 63 else None
