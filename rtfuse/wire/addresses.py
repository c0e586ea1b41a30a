"""Check endpoints before they are bound or connected to, and resolve their host names."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from rtfuse.errors import ConfigError

_LOOPBACK = re.compile(r"tcp://(127(\.\d+){3}|localhost|\[::1\]|lo):", re.IGNORECASE)

_NAMED = re.compile(r"tcp://(?!\[)([^/:;*\s]+):([\d*]+)")
"""A TCP endpoint whose host may be a name."""
Resolve = Callable[..., list[tuple[Any, Any, Any, str, tuple[Any, ...]]]]
"""`socket.getaddrinfo`, or another in tests."""


def wants_ipv6(endpoint: str, resolve: Resolve = socket.getaddrinfo) -> bool:
    """Return True for an endpoint that is reached by IPv6 alone: its address, or the only one that its name has.

    ZeroMQ asks for addresses of one kind only. A name with both is reached by IPv4, as a rig publishes there unless
    told otherwise.
    """
    if "[" in endpoint:
        return True
    named = _NAMED.fullmatch(endpoint)
    return named is not None and _families(named[1], resolve) == {socket.AF_INET6}


def bindable(endpoint: str, resolve: Resolve = socket.getaddrinfo) -> str:
    """Return an endpoint to bind to with a number in place of a host's name, which ZeroMQ takes for a device's.

    An endpoint without a name, or with one of a network device, stays as it is. Of several addresses it takes IPv4's.
    """
    named = _NAMED.fullmatch(endpoint)
    if named is None or named[1] in {name for _, name in socket.if_nameindex()}:
        return endpoint
    found = {family: address[0] for family, *_, address in reversed(_addresses(named[1], resolve))}
    if socket.AF_INET in found:
        return f"tcp://{found[socket.AF_INET]}:{named[2]}"
    return f"tcp://[{found[socket.AF_INET6]}]:{named[2]}" if socket.AF_INET6 in found else endpoint


def _families(host: str, resolve: Resolve) -> set[int]:
    return {family for family, *_ in _addresses(host, resolve)}


def _addresses(host: str, resolve: Resolve) -> list[tuple[Any, Any, Any, str, tuple[Any, ...]]]:
    try:
        return resolve(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def check_endpoint(endpoint: str) -> None:
    """Raise ConfigError for a TCP port below 0 or above 65535: ZeroMQ would silently use another."""
    port = re.fullmatch(r"tcp://.*:([+-]?\d+)", endpoint)
    if port and not 0 <= int(port[1]) <= 65_535:
        raise ConfigError(f"endpoint {endpoint}: port {port[1]} does not exist; choose 1 to 65535")


def check_reach(endpoint: str, what: str, *, encrypted: bool, allow_remote: bool) -> None:
    """Raise ConfigError, naming the setting `what`, for an unencrypted endpoint that other machines can reach.

    `encrypted` or `allow_remote` permits it.
    """
    if encrypted or allow_remote or not endpoint.startswith("tcp://"):
        return
    if not _LOOPBACK.match(endpoint) and not _LOOPBACK.match(bindable(endpoint)):
        raise ConfigError(
            f"{what}: {endpoint} reaches beyond this machine and the stream is not encrypted; encrypt it with "
            "--keys DIR, bind to 127.0.0.1, or allow plain text with --insecure"
        )
