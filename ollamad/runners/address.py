"""Where a runner listens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A UNIX socket; its directory must be private, llama-server gives the file mode 0755."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A loopback port, for programs that cannot listen on a UNIX socket."""

    host: str
    port: int


Address = UnixAddress | TcpAddress
