"""A certificate authority of a test's own, and TLS in front of a server that has none.

authority = Authority()
pem = authority.write(tmp_path)                       # for SSL_CERT_FILE
front = TlsFront(server.port, authority.context("r.test", "127.0.0.1"))
with in_thread(front): ...                            # of support.gateway
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import tempfile
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates for any name. Nobody trusts it until told to."""

    def __init__(self, name: str = "Authority of the tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = (
            _builder(self._name, self._name, self._key, 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def write(self, directory: Path, name: str = "authority.pem") -> Path:
        path = directory / name
        path.write_bytes(self.pem)
        return path

    def context(self, *names: str, days: int = 7) -> ssl.SSLContext:
        """For a server that is called so: host names or addresses. Negative days: expired."""
        if days > 0 and names in self._contexts:
            return self._contexts[names]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(names[0]), self._name, key, days * _DAY)
            .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # OpenSSL takes files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate.public_bytes(Encoding.PEM) + private)
            file.flush()
            context.load_cert_chain(file.name)
        self._contexts[names] = context
        return context


class TlsFront:
    """TLS on a port of loopback; inside it everything goes to ``upstream``, a plain port."""

    def __init__(self, upstream: int, context: ssl.SSLContext) -> None:
        self.upstream = upstream
        self.port = 0
        self._context = context

    async def serve(
        self, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._client, listeners)
            task_status.started(self.port)

    async def _client(self, stream: trio.SocketStream) -> None:
        try:
            await terminate(stream, self._context, self.upstream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it left, or does not trust us
        finally:
            await trio.aclose_forcefully(stream)


async def terminate(stream: trio.abc.Stream, context: ssl.SSLContext, upstream: int) -> None:
    """TLS with whoever is on ``stream``; what is in it goes to ``upstream`` and back."""
    layer = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    await layer.do_handshake()
    inner = await trio.open_tcp_stream("127.0.0.1", upstream)
    async with inner:
        await splice(layer, inner)


async def splice(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Bytes in both directions, until either side ends or breaks."""

    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(1 << 16):
                await sink.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)


def free_port() -> int:
    """A port of loopback on which nobody listens just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lasts: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - 10 * _DAY)
        .not_valid_after(_NOW + lasts)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
