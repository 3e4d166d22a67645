"""Whether a server can listen where it is to: looked at before anything is loaded."""

from __future__ import annotations

import socket

from softspoken.types import InputError, first_line


def require_free(host: str, port: int) -> None:
    """Raises InputError where nothing can listen at `port` of `host`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as servers do: one that has just ended is no other
            tried.bind(address)
            tried.listen()
    except (OSError, UnicodeError) as error:  # the latter for a name that is none
        raise InputError(
            f"port {port} of {host} cannot be listened at ({getattr(error, 'strerror', None) or first_line(error)}); is another server there? give another port or host"
        ) from error
