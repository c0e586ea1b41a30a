"""Check endpoints before they are bound or connected to."""

from __future__ import annotations

import re

from rtfuse.errors import ConfigError

_LOOPBACK = re.compile(r"tcp://(127(\.\d+){3}|localhost|\[::1\]|lo):", re.IGNORECASE)


def check_endpoint(endpoint: str) -> None:
    """Raise ConfigError for a TCP port below 0 or above 65535: ZeroMQ would silently use another."""
    port = re.fullmatch(r"tcp://.*:([+-]?\d+)", endpoint)
    if port and not 0 <= int(port[1]) <= 65_535:
        raise ConfigError(f"endpoint {endpoint}: port {port[1]} does not exist; choose 1 to 65535")


def check_reach(endpoint: str, what: str, *, encrypted: bool, allow_remote: bool) -> None:
    """Raise ConfigError, naming the setting `what`, for an unencrypted endpoint that other machines can reach.

    `encrypted` or `allow_remote` permits it.
    """
    if endpoint.startswith("tcp://") and not _LOOPBACK.match(endpoint) and not encrypted and not allow_remote:
        raise ConfigError(
            f"{what}: {endpoint} reaches beyond this machine and the stream is not encrypted; encrypt it with "
            "--keys DIR, bind to 127.0.0.1, or say that you want it with --insecure"
        )
