"""Package versions that a cluster's workers must share with the process that runs the fit."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import version

from streamreg.errors import ClusterError

# how many leading numbers of a version must agree: other versions may sum in another order
_PACKAGES = {"streamreg": 3, "numpy": 2, "scipy": 2, "zarr": 1, "numcodecs": 2}


@cache
def versions() -> dict[str, str]:
    """Return the versions on which the bits of an answer depend."""
    known = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package, numbers in _PACKAGES.items():
        known[package] = ".".join(version(package).split(".")[:numbers])
    return known


def require_versions(expected: dict[str, str]) -> None:
    """Raise :class:`ClusterError` if this process has other versions."""
    other = [
        f"{name} {found} (the fit's process has {expected[name]})"
        for name, found in versions().items()
        if found != expected[name]
    ]
    if other:
        raise ClusterError(
            f"a worker on {platform.node()} has other versions: {', '.join(other)}; install the "
            "same everywhere, since sums may differ"
        )
