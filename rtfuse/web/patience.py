"""Notice a viewer that has stopped reading, or that has gone without a farewell, within some ten seconds."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from aiohttp import web

HEARTBEAT_S = 4.0
"""Silence of a WebSocket after which it is asked for a sign of life; it is closed if none comes in half of that."""
_STUCK_S = 5.0
_SEND_BYTES = 64 << 10


def end_when_gone(transport: asyncio.Transport | None) -> None:
    """Let TCP end a connection whose data are not acknowledged for some seconds, where the system can."""
    if transport is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):  # it may have ended already
            tcp = transport.get_extra_info("socket")
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * _STUCK_S))


def hold_little(transport: asyncio.Transport | None) -> None:
    """Let little wait for a slow reader of a stream, here and in the system.

    What waits there grows old, and hides that the reader has stopped.
    """
    if transport is not None:
        transport.set_write_buffer_limits(high=_SEND_BYTES)
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)


class Patient:
    """Writes a stream to a viewer, however slow, until it has taken nothing for some seconds."""

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport | None) -> None:
        self._response, self._transport = response, transport

    async def write(self, data: bytes) -> None:
        """Write bytes. Raises ConnectionError if the viewer has gone or does not read."""
        writing = asyncio.ensure_future(self._response.write(data))
        try:
            while not writing.done():
                before = self._waiting()
                await asyncio.wait({writing}, timeout=_STUCK_S)
                if not writing.done() and self._waiting() >= before:
                    self._abort()
                    raise ConnectionAbortedError("the viewer does not read")
            writing.result()
        finally:
            writing.cancel()

    def _waiting(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
