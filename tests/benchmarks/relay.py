"""The least that a trio program between a client and a runner can do: copy bytes.

    relay.py <path of a socket | port>

Listens on a free port of 127.0.0.1, prints it, and copies between each client and a connection of
its own to the runner. What the daemon costs for a token is compared with what this costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import trio

_BYTES = 65536


async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some(_BYTES):
        await sink.send_all(data)


def handler(runner: str) -> Callable[[trio.SocketStream], Any]:
    async def relay(client: trio.SocketStream) -> None:
        if runner.isdecimal():
            server: trio.SocketStream = await trio.open_tcp_stream("127.0.0.1", int(runner))
        else:
            server = await trio.open_unix_socket(runner)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(copy, client, server)
            await copy(server, client)
            nursery.cancel_scope.cancel()

    return relay


async def main(runner: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(handler(runner), listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
