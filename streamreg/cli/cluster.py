"""``--scheduler``: a connection to a Dask cluster."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from streamreg.cli import show
from streamreg.errors import InputError


def connect(address: str, seconds: float = 10) -> Any:  # noqa: ANN401  (distributed has no types)
    """Return a client of the scheduler at an address, such as ``tcp://127.0.0.1:8786``."""
    if not address:
        raise InputError("--scheduler is empty; pass an address, such as tcp://127.0.0.1:8786")
    try:
        from distributed import Client  # noqa: PLC0415  (an extra)
        from distributed.comm.registry import backends  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"--scheduler needs {error.name}: pip install 'streamreg[cluster]'"
        ) from error
    url = urlsplit(address if "://" in address else f"tcp://{address}")
    if url.scheme not in backends:
        known = ", ".join(f"{name}://" for name in backends)
        raise InputError(f"--scheduler {address} begins with none of {known}")
    if url.scheme != "inproc" and not re.search(r":\d{1,5}$", address):
        raise InputError(f"--scheduler {address} has no port; write tcp://HOST:PORT")
    if url.scheme == "tcp" and not _is_loopback(url.hostname or ""):
        show.warn(
            f"{address} is not encrypted, and everyone who reaches it can run code on its "
            "workers; use tls:// outside networks that you trust"
        )
    try:
        # because a Client that fails to connect waits again, and prints a traceback, at its end
        asyncio.run(_require_scheduler(address, seconds))
        return Client(  # type: ignore[no-untyped-call]
            address, timeout=seconds, set_as_default=False, name="streamreg"
        )
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"--scheduler {address} does not answer as a Dask scheduler within {seconds} s: "
            f"{str(error) or 'no reply'}. Is `dask scheduler` running at that address?"
        ) from error


async def _require_scheduler(address: str, seconds: float) -> None:
    from distributed import Security, rpc  # noqa: PLC0415  (as in connect)

    server = rpc(address, connection_args=Security().get_connection_args("client"))  # type: ignore[no-untyped-call]
    async with asyncio.timeout(seconds), server:
        kind = (await server.identity())["type"]
    if kind != "Scheduler":
        raise ValueError(f"it is a {kind}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
