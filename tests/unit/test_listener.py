"""Where the daemon listens, and what it says when it cannot."""

import socket
from collections.abc import Iterator

import pytest

from ollamad.errors import UsageError
from ollamad.host import parse_host
from ollamad.listener import bound_address, is_loopback, listen


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_clients_can_connect_at_once() -> None:
    with listen(parse_host("127.0.0.1:0")) as listener:
        host, _, port = bound_address(listener).rpartition(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), timeout=5).close()
        assert not listener.getblocking()
        assert is_loopback(listener)


def test_connections_of_machines_that_vanish_do_not_stay_for_ever() -> None:
    with listen(parse_host("127.0.0.1:0")) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname(), timeout=5):
            server, _ = listener.accept()
            with server:
                assert server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_name_means_its_ipv4_address() -> None:
    with listen(parse_host("localhost:0")) as listener:
        assert bound_address(listener).startswith("127.0.0.1:")


def test_a_taken_port(taken: int) -> None:
    with pytest.raises(UsageError) as caught:
        listen(parse_host(f"127.0.0.1:{taken}"))
    assert str(caught.value) == f"listen tcp 127.0.0.1:{taken}: bind: address already in use"


def test_a_taken_port_by_name(taken: int) -> None:
    with pytest.raises(UsageError) as caught:
        listen(parse_host(f"localhost:{taken}"))
    assert str(caught.value) == f"listen tcp 127.0.0.1:{taken}: bind: address already in use"


def test_a_port_of_a_daemon_that_just_ended_is_free() -> None:
    with listen(parse_host("127.0.0.1:0")) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        listener.setblocking(True)
        server, _ = listener.accept()
        # Closed first on this side, so the connection lingers in the kernel.
        server.close()
        client.recv(1)
        client.close()
    listen(parse_host(f"127.0.0.1:{port}")).close()


def test_no_host_means_every_interface() -> None:
    with listen(parse_host(":0")) as listener:
        port = listener.getsockname()[1]
        assert not is_loopback(listener)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if listener.family == socket.AF_INET6:
            socket.create_connection(("::1", port), timeout=5).close()


def test_no_host_and_a_taken_port() -> None:
    with listen(parse_host(":0")) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            listen(parse_host(f":{port}"))
    assert str(caught.value) == f"listen tcp :{port}: bind: address already in use"


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6_only_when_it_is_named() -> None:
    try:
        listener = listen(parse_host("[::1]:0"))
    except UsageError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        assert bound_address(listener).startswith("[::1]:")
        assert is_loopback(listener)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(UsageError) as caught:
        listen(parse_host("192.0.2.1:4321"))
    assert str(caught.value) == "listen tcp 192.0.2.1:4321: bind: cannot assign requested address"


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 300])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"listen tcp: lookup {name}: no such host"):
        listen(parse_host(name))
