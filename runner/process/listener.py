"""Which process listens where an address of this machine points."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit

import psutil

__all__ = ["listener_on"]


def listener_on(address: str) -> str | None:
    """Name the process that listens at an address of this machine, by its id and name.

    Args:
        address: http or https.

    Returns:
        None: the address is another machine's or a name of this one other than localhost, or the process is another user's.
    """
    parts = urlsplit(address)
    if not _is_loopback(parts.hostname or ""):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with suppress(psutil.Error, OSError, RuntimeError):  # no /proc, or one of another form
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and tuple(connection.laddr)[1:] == (port,):
                return f"process {connection.pid}, {psutil.Process(connection.pid).name()}"
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
