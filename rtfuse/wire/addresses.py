"""Check the endpoints that are bound or connected to."""

from __future__ import annotations

import re

from rtfuse.errors import ConfigError

_LOOPBACK = re.compile(r"tcp://(127(\.\d+){3}|localhost|\[::1\]|lo):", re.IGNORECASE)


def check_endpoint(endpoint: str) -> None:
    """Refuse a TCP port that does not exist: ZeroMQ would quietly take another. Raises ConfigError."""
    port = re.fullmatch(r"tcp://.*:(\d+)", endpoint)
    if port and int(port[1]) > 65_535:
        raise ConfigError(f"endpoint {endpoint}: there is no port {port[1]}; the highest is 65535")


def check_reach(endpoint: str, what: str, *, encrypted: bool, allow_remote: bool) -> None:
    """Refuse to bind beyond this machine in plain text, unless that was asked for. Raises ConfigError about `what`."""
    if endpoint.startswith("tcp://") and not _LOOPBACK.match(endpoint) and not encrypted and not allow_remote:
        raise ConfigError(
            f"{what}: {endpoint} reaches beyond this machine and the stream is not encrypted; encrypt it with "
            "--keys DIR, bind to 127.0.0.1, or say that you want it with --insecure"
        )
