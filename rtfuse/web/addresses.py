"""Read the address that the page is served at."""

from __future__ import annotations

import re

from rtfuse.errors import ConfigError

DEFAULT_ADDRESS = "127.0.0.1:8080"
_ADDRESS = re.compile(r"(?:(\[[0-9a-fA-F:.%\w]+\]|[\w.-]+):)?(\d{1,5})")


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of `ADDR:PORT`, or of a port on the loopback device. Raises ConfigError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise ConfigError(f"web.address: {text!r} is not an address; want for example {DEFAULT_ADDRESS}, or a port")
    return (found[1] or "127.0.0.1").strip("[]"), int(found[2])
