"""How internal an address is, and who may be led there.

Pure. A registry may send this machine to other places: by a redirect, a realm, an upload location.
None of them may be closer to us than the registry itself is, or anybody whose model is pulled could
make the daemon ask the services of its own network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressScope(IntEnum):
    """From where everybody can go to where only this machine can."""

    PUBLIC = 0
    PRIVATE = 1
    LINK_LOCAL = 2
    LOOPBACK = 3


class AddressRefused(Exception):
    """A server is only at addresses that are more internal than allowed; nothing was sent."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} is at the internal address {address}")
        self.host = host
        self.address = address


#: Nothing is too internal.
ANY = AddressScope.LOOPBACK

_V4 = (
    ("127.0.0.0/8", AddressScope.LOOPBACK),
    # Linux connects these to itself.
    ("0.0.0.0/8", AddressScope.LOOPBACK),
    ("169.254.0.0/16", AddressScope.LINK_LOCAL),
    ("224.0.0.0/4", AddressScope.LINK_LOCAL),
    ("255.255.255.255/32", AddressScope.LINK_LOCAL),
    # Shared address space of providers; the rest that is not global follows from ipaddress.
    ("100.64.0.0/10", AddressScope.PRIVATE),
)
_V6 = (
    ("::1/128", AddressScope.LOOPBACK),
    ("::/128", AddressScope.LOOPBACK),
    ("fe80::/10", AddressScope.LINK_LOCAL),
    ("ff00::/8", AddressScope.LINK_LOCAL),
    ("fec0::/10", AddressScope.PRIVATE),
    ("fc00::/7", AddressScope.PRIVATE),
    ("64:ff9b:1::/48", AddressScope.PRIVATE),
)
_NETWORKS = tuple((ipaddress.ip_network(text), scope) for text, scope in (*_V4, *_V6))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def scope_of(text: str) -> AddressScope:
    """The scope of a literal address, that of an IPv4 address inside it counted too.

    Raises ValueError for anything else, a host name included.
    """
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return max(map(_scope, (address, *_embedded(address))))


def scope_of_host(host: str) -> AddressScope:
    """What can be told of a host without asking: for what a proxy is going to resolve."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return AddressScope.LOOPBACK
    try:
        return scope_of(name)
    except ValueError:
        return _loose(name)


def allowed(host: str, addresses: Sequence[str], internal: AddressScope) -> list[str]:
    """Of the literal ``addresses`` of ``host``, those not more internal than ``internal``.

    Raises AddressRefused when there are addresses and none of them is.
    """
    chosen = [address for address in addresses if scope_of(address) <= internal]
    if addresses and not chosen:
        raise AddressRefused(host, addresses[0])
    return chosen


def _scope(address: Address) -> AddressScope:
    for network, scope in _NETWORKS:
        if address.version == network.version and address in network:
            return scope
    return AddressScope.PUBLIC if address.is_global else AddressScope.PRIVATE


def _embedded(address: Address) -> list[Address]:
    """IPv4 addresses to which an IPv6 address may lead by translation or a tunnel."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (address in _COMPATIBLE and low > 1):
        found.append(ipaddress.IPv4Address(low))
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(low))
    return [each for each in found if each is not None]


def _loose(name: str) -> AddressScope:
    """Spellings of IPv4 addresses that resolvers know beside the usual: ``127.1``, ``0x7f000001``.

    A proxy may take them for addresses; whoever writes such a thing has something to hide.
    """
    parts = name.split(".")
    if len(parts) > 4 or not all(part[:1].isdigit() and part.isalnum() for part in parts):
        return AddressScope.PUBLIC
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        return AddressScope.PUBLIC
    *high, low = numbers
    value = low
    for position, number in enumerate(high):
        value += number << (24 - 8 * position)
    if value > 0xFFFFFFFF:
        return AddressScope.PUBLIC
    return _scope(ipaddress.IPv4Address(value))


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text, 16)
    return int(text, 8 if len(text) > 1 and text.startswith("0") else 10)
