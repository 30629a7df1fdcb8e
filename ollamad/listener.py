"""The listening socket of the daemon (``runners-and-scheduling.md`` 5.1 step 2, 5.2)."""

from __future__ import annotations

import errno
import os
import socket
import sys

from ollamad.errors import UsageError
from ollamad.host import Host, join_host_port

# The kernel cuts it to what the administrator allows.
_BACKLOG = 4096


def listen(host: Host) -> socket.socket:
    """Bind and listen, non-blocking; from here on clients can connect and wait.

    An empty host means all interfaces, over IPv6 and IPv4. Raises UsageError with the text that
    users know: ``listen tcp 127.0.0.1:11434: bind: address already in use``.
    """
    if not host.host:
        return _listen_everywhere(host)
    try:
        found = socket.getaddrinfo(
            host.host, host.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"listen tcp: lookup {host.host}: no such host") from None
    # A name may have addresses of both families; like the reference, take IPv4 first.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    try:
        return _listen(family, address)
    except OSError as error:
        shown = join_host_port(str(address[0]), host.port_text)
        raise UsageError(f"listen tcp {shown}: {_reason(error)}") from None


def bound_address(listener: socket.socket) -> str:
    """``host:port`` that ``listener`` is bound to, with the port that the system chose for 0."""
    address = listener.getsockname()
    return join_host_port(address[0], address[1])


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach ``listener``."""
    host = str(listener.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def _listen_everywhere(host: Host) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return _listen(socket.AF_INET6, ("::", host.port), dual_stack=True)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UsageError(f"listen tcp {host.address}: {_reason(error)}") from None
        # IPv6 is compiled in but switched off on this machine.
    try:
        return _listen(socket.AF_INET, ("0.0.0.0", host.port))
    except OSError as error:
        raise UsageError(f"listen tcp {host.address}: {_reason(error)}") from None


def _listen(
    family: socket.AddressFamily | int, address: tuple[object, ...], *, dual_stack: bool = False
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            # A restarted daemon need not wait until the kernel forgets its old connections.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        _keep_alive(listener)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _keep_alive(listener: socket.socket) -> None:
    """Notice in minutes that a client's machine has vanished: connections inherit it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8)):
        if (option := getattr(socket, name, None)) is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def _reason(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    return f"bind: {reason.lower()}"
