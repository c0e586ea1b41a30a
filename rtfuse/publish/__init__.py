"""Fused frames leave here: the wire format, the ZeroMQ publisher with its encoders, the recorder."""

import re

from rtfuse.errors import ConfigError


def check_endpoint(endpoint: str) -> None:
    """Refuse a TCP port that does not exist: ZeroMQ would quietly take another. Raises ConfigError."""
    port = re.fullmatch(r"tcp://.*:(\d+)", endpoint)
    if port and int(port[1]) > 65_535:
        raise ConfigError(f"endpoint {endpoint}: there is no port {port[1]}; the highest is 65535")
