"""Read the addresses that the page is served at and those that it knows: names, path, proxies, pages that frame it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from rtfuse.errors import ConfigError

DEFAULT_ADDRESS = "127.0.0.1:8080"
OWN_PATHS = {
    "controls",
    "favicon.ico",
    "healthz",
    "live",
    "login",
    "metrics",
    "plain",
    "readyz",
    "snapshot.jpg",
    "state",
}
OWN_PATHS |= {"static", "stream.mjpg"}
"""First parts of the page's own paths."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_ADDRESS = re.compile(r"(?:(\[[0-9a-fA-F:.%\w]+\]|[\w.-]+):)?(\d{1,5})")
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_MAX_PORT = 65535
_MAPPED_BITS = 96
"""Bits of an IPv6 address before the IPv4 address that it maps."""
_NAME = r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?"
_ORIGIN = re.compile(rf"https?://(?:\[[0-9a-f:.]+\]|{_NAME})(?::(\d{{1,5}}))?")


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of `ADDR:PORT`, or of a port on the loopback device. Raises ConfigError."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ConfigError(f"web.address: {text!r} is not an address; want for example {DEFAULT_ADDRESS}, or a port")
    if int(found[2]) > _MAX_PORT:
        raise ConfigError(f"web.address: the port of {text!r} is above {_MAX_PORT}; want for example {DEFAULT_ADDRESS}")
    return (found[1] or "127.0.0.1").strip("[]"), int(found[2])


def is_prefix(text: str) -> bool:
    """Return True for a path such as `/rig1`, without a slash at its end, of plain characters."""
    return len(text) <= 200 and _PREFIX.fullmatch(text) is not None


def prefix_of(text: str) -> str:
    """Return the path that the page lies under without a slash at its end; empty: at the root. Raises ConfigError."""
    prefix = text.rstrip("/")
    if prefix and not is_prefix(prefix):
        raise ConfigError(f"web.prefix: {text!r} is not a path; want for example /rig1")
    if prefix.split("/")[1:2] and prefix.split("/")[1] in OWN_PATHS:
        raise ConfigError(f"web.prefix: {text!r} begins like a path of the page itself; want for example /rig1")
    return prefix


def names_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the rig as browsers send them: in lower case, letters beyond ASCII as `xn--…`.

    Raises ConfigError for a text that no browser would send as a host's name.
    """
    found = list[str]()
    for text in texts:
        try:
            name = text.rstrip(".").encode("idna").decode().lower()
        except UnicodeError:
            name = ""
        if not re.fullmatch(_NAME, name):
            raise ConfigError(f"web.hosts: {text!r} is not a name; want for example rigs.example, without port")
        found.append(name)
    return tuple(found)


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the addresses and networks of the proxies whose headers are believed. Raises ConfigError."""
    found = list[Network]()
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as e:
            fault = "has bits set beyond its network" if "host bits" in str(e) else "is not an address or a network"
            raise ConfigError(f"web.proxies: {text!r} {fault}; want for example 127.0.0.1 or 10.0.0.0/24") from e
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        if mapped is not None and network.prefixlen >= _MAPPED_BITS:  # clients' addresses are read as IPv4 too
            network = ipaddress.ip_network(f"{mapped}/{network.prefixlen - _MAPPED_BITS}")
        if network.prefixlen == 0:
            raise ConfigError(f"web.proxies: {text!r} includes every address, so any client could forge its own")
        found.append(network)
    return tuple(found)


def origins_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the origins of pages that may frame this one, in lower case. Raises ConfigError."""
    found = [text.lower().removesuffix("/") for text in texts]
    for text, origin in zip(texts, found, strict=True):
        named = _ORIGIN.fullmatch(origin)
        if named is None or int(named[1] or 1) not in range(1, 65536):
            raise ConfigError(f"web.embed: {text!r} is not an origin; want for example https://home.example:8123")
    return tuple(found)
