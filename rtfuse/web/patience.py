"""Notice a viewer that has stopped reading, or that has gone without a farewell, within some ten seconds."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from array import array
from contextlib import suppress

from aiohttp import web

if sys.platform != "win32":
    import fcntl
    import termios

HEARTBEAT_S = 4.0
"""Silence of a WebSocket after which it is asked for a sign of life; it is closed if none comes in half of that."""
_STUCK_S = 5.0
_LOOK_S = 0.5
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
    """Writes a stream to a viewer, however slow, until it has taken nothing for some seconds.

    A viewer takes bytes when its system acknowledges them. A slow reader's system does so in steps of some ten
    kilobytes, so the socket's queue is asked: that the socket can be written to again is known later and more rarely.
    """

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport | None) -> None:
        self._response, self._transport = response, transport
        self._written = self._most = 0
        self._since = time.monotonic()

    async def write(self, data: bytes) -> None:
        """Write bytes. Raises ConnectionError if the viewer has gone or does not read."""
        self._written += len(data)
        writing = asyncio.ensure_future(self._response.write(data))
        try:
            await asyncio.wait({writing}, timeout=_LOOK_S)
            self._look()
            while not writing.done():
                await asyncio.wait({writing}, timeout=_LOOK_S)
                self._look()
            writing.result()
        finally:
            writing.cancel()

    def _look(self) -> None:
        """Abort if the viewer has taken nothing for long. Raises ConnectionAbortedError."""
        waiting, now = self._waiting(), time.monotonic()
        if not waiting or self._written - waiting > self._most:
            self._most, self._since = self._written - waiting, now
        elif now - self._since > _STUCK_S:
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionAbortedError("the viewer does not read")

    def _waiting(self) -> int:
        """Return the bytes that the viewer's system has not acknowledged, where the system counts them."""
        if self._transport is None:
            return 0
        queued = array("i", [0])
        if sys.platform != "win32":
            with suppress(OSError, ValueError):  # it may have ended already
                fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self._transport.get_write_buffer_size() + queued[0]
