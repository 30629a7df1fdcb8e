"""Connections on a listening socket, from the first one to an orderly end.

Hypercorn's connection with our protocol on it (`ollamad.api.http1`): no timeouts, writes that cost
one system call, and a way to end every connection when the daemon stops.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from ollamad.api.http1 import HEADER_LIMIT, Http1
from ollamad.errors import ShuttingDown

if TYPE_CHECKING:
    from ollamad.api.app import Application

log = logging.getLogger(__name__)

#: Seconds that a client gets to read the last line of a request that was cut.
_FLUSH_LIMIT = 1.0
#: Seconds in which a closed connection takes and drops what the client is still sending, so that
#: the answer before it is not lost to a reset.
_LINGER = 0.5
#: Writes that succeed at once between two checkpoints.
_WRITES_PER_CHECKPOINT = 32
_CAN_WRITE_AT_ONCE = sys.platform != "win32"


class Server:
    """Serves ``app`` until `stop`."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.config = Config()
        self.config.h11_max_incomplete_size = HEADER_LIMIT
        self.config.keep_alive_max_requests = sys.maxsize
        self.config.errorlog = None
        self.context = WorkerContext(None)
        self._accepting = trio.CancelScope()
        self._open: set[Connection] = set()
        self._fewer = trio.Event()

    async def run(
        self,
        listener: socket.socket,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` was called and the last connection is closed.

        ``listener`` is bound, listening and not blocking; it is closed with the accepting.
        """
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with trio.open_nursery() as nursery:
            with self._accepting:
                task_status.started()
                await trio.serve_listeners(self._serve, [accepting], handler_nursery=nursery)

    async def stop(self, grace: float) -> None:
        """Accept no more, then end all connections within ``grace`` seconds and a bit.

        Idle connections close at once. Requests go on; those that still run after ``grace`` are
        cut: with a last line that says so, or 503 when their answer has not begun.
        """
        self._accepting.cancel()
        await self.context.terminated.set()
        for connection in self._open:
            if connection.idle:
                connection.abandon()
        with trio.move_on_after(grace):
            await self._none_open()
        if self.app.running:
            log.warning("ending requests that still run", extra={"count": len(self.app.running)})
            self.app.cut(ShuttingDown())
        with trio.move_on_after(_FLUSH_LIMIT):
            await self._none_open()
        for connection in self._open:
            connection.abandon()

    async def _none_open(self) -> None:
        while self._open:
            await self._fewer.wait()

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = Connection(self, stream)
        self._open.add(connection)
        try:
            await connection.run()
        except Exception:  # a bug in one connection must not end the others
            log.exception("connection failed")
        finally:
            self._open.discard(connection)
            self._fewer.set()
            self._fewer = trio.Event()


class Connection(TCPServer):
    """One connection; ``idle`` between requests."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        super().__init__(
            None,  # type: ignore[arg-type] # the protocol knows the application
            server.config,
            server.context,
            ConnectionState({}),
            stream,  # type: ignore[arg-type]
        )
        self._app = server.app
        self._scope = trio.CancelScope()
        self._fd = stream.socket.fileno()
        self._writable = True
        self._closing = False
        self._ended = trio.Event()
        self._unyielded = 0
        self.idle = True
        self._http: Http1

    async def run(self) -> None:
        """Serve requests until either side closes."""
        try:
            own = self.stream.socket
            client = parse_socket_addr(own.family, own.getpeername())
            server = parse_socket_addr(own.family, own.getsockname())
            with self._scope:
                async with TaskGroup() as task_group:
                    self._http = Http1(
                        self._app,
                        self.config,
                        self.context,
                        task_group,
                        client,
                        server,
                        self.protocol_send,
                        self.write,
                    )
                    await self._read_data()
        except OSError:
            pass  # the client left before its connection was set up
        finally:
            await self._close()

    def abandon(self) -> None:
        """End it now, whatever it is doing."""
        self._writable = False
        self._scope.cancel()

    async def write(self, data: bytes) -> None:
        """Send ``data``, at once where the socket's buffer has room.

        A client that has gone is noticed here and reported to its handler; nothing is raised.
        """
        if not self._writable:
            await trio.lowlevel.checkpoint()
            return
        sent = 0
        if _CAN_WRITE_AT_ONCE:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                pass
            except OSError:
                await self._lost()
                return
        if sent == len(data):
            self._unyielded += 1
            if self._unyielded == _WRITES_PER_CHECKPOINT:
                self._unyielded = 0
                await trio.lowlevel.checkpoint()
            return
        try:
            await self.stream.send_all(memoryview(data)[sent:])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._lost()
        except trio.Cancelled:
            self._writable = False  # a piece may be cut in two: nothing can follow it
            raise

    async def protocol_send(self, event: Any) -> None:
        if isinstance(event, RawData):
            await self.write(event.data)
        elif isinstance(event, Closed):
            await self._close()
            await self._http.handle(Closed())
        elif isinstance(event, Updated):
            self.idle = event.idle

    async def _lost(self) -> None:
        self._writable = False
        await self._http.handle(Closed())

    async def _read_data(self) -> None:
        try:
            while True:
                data = await self.stream.receive_some(MAX_RECV)
                if not self._closing:
                    await self._http.handle(RawData(bytes(data)))
                if not data:
                    break
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        finally:
            self._ended.set()
        await self._http.handle(Closed())

    async def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._writable = False
        unread = hasattr(self, "_http") and self._http.unread
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LINGER):
                await self.stream.send_eof()
                if unread:
                    await self._drop_incoming()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # the client was faster, or an answer is stuck in the middle
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _drop_incoming(self) -> None:
        try:
            while await self.stream.receive_some(MAX_RECV):
                pass
        except trio.BusyResourceError:
            await self._ended.wait()  # the connection's reader drops what comes
